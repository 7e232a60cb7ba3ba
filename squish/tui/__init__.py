"""The full-screen terminal app: `app.run` is its door."""
