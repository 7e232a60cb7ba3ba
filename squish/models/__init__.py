"""Models: names that are known, and those that are installed."""
