"""What makes MLX fast on a CPU."""
