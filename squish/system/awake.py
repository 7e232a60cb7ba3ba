"""Keeps the machine from falling asleep in the middle of work. The display may always sleep."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from squish.system.host import HOST

_lock = threading.Lock()
_working = 0
_running: subprocess.Popen[bytes] | None = None


@contextmanager
def awake() -> Iterator[None]:
    """Around work that takes long. Any number may overlap: one program of the system holds the machine for all."""
    _begin()
    try:
        yield
    finally:
        _end()


def _begin() -> None:
    global _working, _running
    with _lock:
        _working += 1
        command = HOST.awake_command(os.getpid())
        if command and (_running is None or _running.poll() is not None):
            with suppress(OSError):  # a system without the program sleeps when it wants
                _running = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )


def _end() -> None:
    global _working, _running
    with _lock:
        _working -= 1
        if _working == 0 and _running is not None:
            _running.terminate()
            _running.wait()
            _running = None
