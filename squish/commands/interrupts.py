"""Ctrl-C in commands: whether this process takes it at all.

A shell starts what it puts in the background, and a script what it starts with `&`, with SIGINT ignored: then Ctrl-C is
meant for another program, and nobody here may take it back.
"""

from __future__ import annotations

import signal


def taken() -> bool:
    """Whether SIGINT has not been ignored since the process was started."""
    return signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def endings() -> tuple[signal.Signals, ...]:
    """The signals that ask a command that runs on to end."""
    return (signal.SIGINT, signal.SIGTERM) if taken() else (signal.SIGTERM,)
