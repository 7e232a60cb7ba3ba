"""Commands about servers: this one, its keys, its ranks on other machines, the running ones, the chat in a browser."""
