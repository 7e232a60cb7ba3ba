"""What is typed in a plain terminal while an answer comes: it does not stand in the middle of it, and the next prompt
has it."""

from __future__ import annotations

import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

_LFLAG = 3


@contextmanager
def kept() -> Iterator[None]:
    """Let the terminal keep it, also through Ctrl-C, which would throw it away. Does nothing without a terminal."""
    try:
        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (OSError, ValueError, termios.error):
        yield
        return
    quiet = list(before)
    quiet[_LFLAG] = (quiet[_LFLAG] & ~termios.ECHO) | termios.NOFLSH
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
