"""The terminal around the app: what is written to it, its keys, its clipboard, the user's editor."""
