"""Anthropic's dialect, the Messages API: Structs, and pure functions to and from `generation`."""
