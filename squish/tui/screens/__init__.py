"""One module and one style sheet a screen, and the commands of the chat."""
