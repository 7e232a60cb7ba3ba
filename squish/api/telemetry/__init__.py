"""Traces of requests for an OpenTelemetry collector: what is known of each request, and the way to the collector."""
