"""Tables of the families: names, transformations and settings."""
