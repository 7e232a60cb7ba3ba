"""HTTP below the handlers: connections, exchanges, headers."""
