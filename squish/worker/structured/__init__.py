"""Structured output: JSON schemas and patterns as grammars, and the tokens that a grammar allows."""
