"""The prefix cache: KV caches of earlier rows in memory, and in files that survive the worker."""
