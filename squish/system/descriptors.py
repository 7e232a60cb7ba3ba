"""How many files and connections this process may have open."""

from __future__ import annotations

import resource

_WANTED = 4096  # macOS gives a process 256, which connections, databases and a model's shards together can need


def raise_limit() -> None:
    """Raise this process's limit as far as it may, up to what it can need. Workers inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
