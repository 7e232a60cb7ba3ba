"""Models and requests on real workers."""
