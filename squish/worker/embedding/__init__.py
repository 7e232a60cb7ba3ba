"""Embedding models: encoders of our own, mlx-lm's decoders without their heads, and vectors from what they compute."""
