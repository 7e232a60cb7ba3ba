"""Pulling models."""
