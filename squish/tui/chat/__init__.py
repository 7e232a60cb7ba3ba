"""A chat without its widgets: its turns and their answers, what is sent with them, and what is set for it."""
