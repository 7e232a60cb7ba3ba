"""What a process that we start is given of our environment."""

from __future__ import annotations

import os

_SECRETS = (
    "SQUISH_API_KEY",
    "HF_TOKEN",
    "SQUISH_JOIN_TOKEN",
    "OTEL_EXPORTER_OTLP_HEADERS",  # with the key of a collector, to which only a server speaks
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
)


def environment() -> dict[str, str]:
    """Of a worker, of a reader of documents and so on: ours, without the secrets that they have no use for."""
    return {name: value for name, value in os.environ.items() if name not in _SECRETS}
