"""The OpenAI-compatible HTTP API of `squish serve`: `app.build_app` makes it, `server.serve` runs it in an event loop.

It owns HTTP and OpenAI's JSON shapes. What a model is, where it is loaded and how tokens are made is the runtime's.
"""
