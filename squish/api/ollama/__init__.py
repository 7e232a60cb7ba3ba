"""Ollama's dialect: `requests` and `responses` are its Structs, `translate` and `replies` the pure functions between
them and the values of generation.py; `models` lists them, `changes` installs and removes them."""
