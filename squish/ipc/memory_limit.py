"""What limits the memory of a process and of those that it starts."""

from __future__ import annotations

import resource


def memory_limit() -> str | None:
    """What to say of such a limit, for libraries that meet it end in many ways; None where there is none."""
    limits = [resource.getrlimit(each)[0] for each in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    least = min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=None)
    if least is None:
        return None
    return f"Memory is limited to {least / 1e9:.2f} GB here, which may be too little: see ulimit -v and ulimit -d."
