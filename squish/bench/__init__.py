"""Measuring models and servers."""
