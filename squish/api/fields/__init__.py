"""Fields that several dialects have: tools, schemas, efforts, limits, and what is refused by name. Pure."""
