"""What a process that we start is given of our environment."""

from __future__ import annotations

import os


def environment() -> dict[str, str]:
    """Of a worker, of a reader of documents and so on: ours, without the secrets that they have no use for."""
    return {k: v for k, v in os.environ.items() if k not in ("SQUISH_API_KEY", "HF_TOKEN", "SQUISH_JOIN_TOKEN")}
