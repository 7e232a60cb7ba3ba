"""What a process that we start is given of our environment."""

from __future__ import annotations

import os


def environment() -> dict[str, str]:
    """The environment of a worker: ours, without the secrets that it has no use for."""
    return {k: v for k, v in os.environ.items() if k not in ("SQUISH_API_KEY", "HF_TOKEN", "SQUISH_JOIN_TOKEN")}
