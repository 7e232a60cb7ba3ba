"""Whether a model fits: the arithmetic, this machine, and room that is reserved."""
