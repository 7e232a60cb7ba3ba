"""Conversations, as they are stored."""
