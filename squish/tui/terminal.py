"""Keeps native libraries off the screen: while the app runs, file descriptor 2 leads to a log file.

Textual draws on `sys.__stderr__`, so that one is moved to a duplicate of the terminal first. Knows no app.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def guarded_stderr(log: Path) -> Iterator[None]:
    """Send what is written to descriptor 2 to `log` (emptied first; the null device when it cannot be written)."""
    sys.stderr.flush()
    target = _open_log(log)
    terminal = os.dup(2)
    original = sys.__stderr__
    with os.fdopen(terminal, "w", encoding="utf-8", errors="replace") as screen:
        sys.__stderr__ = screen  # type: ignore[misc]  # Textual's driver takes its output from here
        os.dup2(target, 2)
        os.close(target)
        try:
            yield
        finally:
            screen.flush()
            os.dup2(terminal, 2)
            sys.__stderr__ = original  # type: ignore[misc]


def _open_log(log: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return os.open(log, flags, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)
