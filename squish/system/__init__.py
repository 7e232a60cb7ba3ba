"""This computer and what runs on it."""
