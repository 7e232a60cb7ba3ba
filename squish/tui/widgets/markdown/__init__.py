"""Markdown on the screen: while it grows, when it is finished, its formulas, and places that were searched for."""
