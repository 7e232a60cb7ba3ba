"""The parts of the chat: its list, its transcript, its prompt, its parameters."""
