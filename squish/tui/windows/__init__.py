"""Windows over a screen: each asks for one thing, or shows one, and goes."""
