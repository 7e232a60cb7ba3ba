"""Ollama's dialect: `requests` and `responses` are its Structs, `translate` and `replies` the pure functions between them
and the values of generation.py; `catalogue` tells of installed and loaded models, `changes` installs and removes them."""
