"""What a worker does besides answering: import, compress, measure, probe."""
