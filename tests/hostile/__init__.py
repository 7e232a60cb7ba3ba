"""Attacks on the HTTP API, the same for every dialect: `make test-hostile`."""
