"""Embedding models in the worker."""
