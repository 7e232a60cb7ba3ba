"""Adapters: low-rank changes of a model's layers, chosen row by row."""
