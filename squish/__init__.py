"""Squish runs large language models on the user's own machine with MLX."""

__version__ = "0.1.0"
