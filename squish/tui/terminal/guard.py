"""The terminal while the app runs: native libraries are kept off it, and nothing that controls one is drawn on it.

File descriptor 2 leads to a log file. Textual draws on `sys.__stderr__`, so that one is moved to a duplicate of the
terminal first. Knows no app.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Thread

from rich.segment import Segment
from textual.color import Color
from textual.drivers import linux_driver
from textual.drivers._writer_thread import WriterThread
from textual.filter import LineFilter

from squish.text import clean
from squish.tui.terminal.keyboard import QuickDriver


@contextmanager
def guarded_stderr(log: Path) -> Iterator[None]:
    """Send what is written to descriptor 2 to `log`, which starts empty; the previous one stays beside it.

    The null device takes its place when it cannot be written.
    """
    sys.stderr.flush()
    target = _open_log(log)
    terminal = os.dup(2)
    original = sys.__stderr__
    screen = os.fdopen(terminal, "w", encoding="utf-8", errors="replace")
    sys.__stderr__ = screen  # type: ignore[misc]  # Textual's driver takes its output from here
    os.dup2(target, 2)
    os.close(target)
    try:
        yield
    finally:
        with suppress(OSError):  # the terminal may have gone
            screen.flush()
        os.dup2(terminal, 2)
        sys.__stderr__ = original  # type: ignore[misc]
        with suppress(OSError):
            screen.close()


def _open_log(log: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.is_file() and log.stat().st_size:
            log.replace(previous(log))
        return os.open(log, flags, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def previous(log: Path) -> Path:
    """Where the log of the run before is kept."""
    return log.with_name(f"{log.stem}.previous{log.suffix}")


class CleanFilter(LineFilter):
    """The last border before the terminal: whatever a widget shows, no line of it holds a control character."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            each if each.control or each.text.isprintable() else Segment(clean(each.text), each.style)
            for each in segments
        ]


class SteadyWriter(WriterThread):
    """Textual's own dies with the terminal, and whoever writes after that waits for it forever."""

    def run(self) -> None:
        try:
            super().run()
        except OSError:
            while self._queue.get() is not None:
                pass

    def stop(self) -> None:
        """One end more: what fails may be the last flush, behind the one that Textual sends."""
        self._queue.put(None)
        super().stop()


@contextmanager
def own_driver_parts() -> Iterator[None]:
    """Let Textual read with QuickDriver and write with SteadyWriter. Windows has a driver of its own, which
    is left alone, and browsers have BrowserDriver.

    The thread that reads keeps no program that was broken off from ending.
    """
    ours = {"LinuxDriver": QuickDriver, "WriterThread": SteadyWriter, "Thread": partial(Thread, daemon=True)}
    driver = vars(linux_driver)
    theirs = {name: driver[name] for name in ours}
    driver.update(ours)
    try:
        yield
    finally:
        driver.update(theirs)


@contextmanager
def ended_by_signals(end: Callable[[int], None]) -> Iterator[None]:
    """Let a signal that ends programs end the app in good order: what was written is saved, and the terminal is as it
    was. end: gets the exit code. In a running loop.
    """
    loop = asyncio.get_running_loop()
    caught = (signal.SIGTERM, signal.SIGHUP)
    for each in caught:
        loop.add_signal_handler(each, end, 128 + each)
    try:
        yield
    finally:
        for each in caught:
            loop.remove_signal_handler(each)
