"""What a model's files say, read without MLX, and which JSON schemas are read. Both processes import it."""
