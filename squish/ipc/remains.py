"""Ends what is left of a process that we started in a session of its own: itself, and a compiler that it started."""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def end_all(leader: int) -> None:
    """At once. leader: its process id, also of one that has just ended, and only then: later the number is another's."""
    with suppress(ProcessLookupError, PermissionError):  # nothing is left
        os.killpg(leader, signal.SIGKILL)
