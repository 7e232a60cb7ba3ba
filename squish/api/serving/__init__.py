"""The server's life and what it was started with: bind, open, serve, drain, and what it writes down."""
