"""Fields that several dialects have: tools, efforts, limits, and what is refused by name. Pure."""
