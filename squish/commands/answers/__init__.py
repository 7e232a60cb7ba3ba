"""Commands that ask a model: one prompt, a conversation, a file of requests, vectors."""
