"""The HTTP API of `squish serve`: `app.build_app` makes it, `serving.server.serve` runs it in an event loop.

It owns HTTP and the JSON shapes of its dialects. What a model is, and how tokens are made, is the runtime's.
"""
