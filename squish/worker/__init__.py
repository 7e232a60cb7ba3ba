"""The only package that imports mlx, mlx_lm and transformers: one process, one model."""
