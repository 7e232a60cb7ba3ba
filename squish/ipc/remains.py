"""Ends what is left of a process that we started in a session of its own: itself, and a compiler that it started."""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def end_all(leader: int) -> None:
    """At once. leader: its process id; where it has ended, just now, before another process can have its number."""
    with suppress(ProcessLookupError, PermissionError):  # nothing is left
        os.killpg(leader, signal.SIGKILL)
