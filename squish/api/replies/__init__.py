"""How an answer is sent: whole, as a stream, as vectors."""
