"""What a worker does other than answer requests: import, compress, measure, probe."""
