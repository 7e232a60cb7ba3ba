"""What a model's files say, read without MLX. Both processes import it."""
