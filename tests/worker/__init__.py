"""The worker, in this process or in one of its own."""
