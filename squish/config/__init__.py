"""Settings, where they come from, and what the program remembers."""
