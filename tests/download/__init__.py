"""Bytes over HTTP into part files."""
