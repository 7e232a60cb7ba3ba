"""The catalog and the store."""
