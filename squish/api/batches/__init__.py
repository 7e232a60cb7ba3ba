"""Batch jobs: many requests in a file, answered behind whatever somebody waits for, and taken up again after a kill."""
