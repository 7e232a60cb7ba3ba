"""The TUI, through its keys."""
