"""Benchmarks of this program: `python -m tests.bench`."""
