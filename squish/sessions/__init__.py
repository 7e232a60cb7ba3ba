"""Which models are loaded, and the requests on each."""
