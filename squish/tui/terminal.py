"""The terminal while the app runs: native libraries are kept off it, what is pasted arrives whole, and nothing that
controls a terminal is drawn on it.

File descriptor 2 leads to a log file. Textual draws on `sys.__stderr__`, so that one is moved to a duplicate of the
terminal first. Knows no app.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.segment import Segment
from textual._xterm_parser import XTermParser
from textual.color import Color
from textual.drivers import linux_driver
from textual.events import Paste
from textual.filter import LineFilter
from textual.message import Message

from squish.text import clean

_PASTE, _PASTED = "\x1b[200~", "\x1b[201~"


@contextmanager
def guarded_stderr(log: Path) -> Iterator[None]:
    """Send what is written to descriptor 2 to `log`, which is begun anew; the one before it stays beside it.

    The null device takes its place when it cannot be written.
    """
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


class PasteParser(XTermParser):
    """Takes a paste as one text, whatever is in it; Textual's own ends it at the first escape character.

    It is far quicker, too: Textual looks at every character by itself.
    """

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._pasting = False
        self._held = ""

    def feed(self, data: str) -> Iterable[Message]:
        if not data:  # the end of all input
            yield from super().feed(data)
            return
        data, self._held = self._held + data, ""
        while data:
            before, mark, data = data.partition(_PASTED if self._pasting else _PASTE)
            if self._pasting and mark:
                self._pasting = False
                yield Paste(before.replace("\x00", ""))
            elif self._pasting:
                self._held = before
            else:
                self._pasting = bool(mark)
                kept = 0 if mark else _begun(before)
                self._held = before[len(before) - kept :]
                if text := before[: len(before) - kept]:
                    yield from super().feed(text)

    def tick(self) -> Iterable[Message]:
        if self._held and not self._pasting:  # no more came: it was no paste
            held, self._held = self._held, ""
            yield from super().feed(held)
        yield from super().tick()


def _begun(text: str) -> int:
    """How many characters at the end may be the beginning of a paste; a lone escape is the key."""
    return next((length for length in range(len(_PASTE) - 1, 1, -1) if text.endswith(_PASTE[:length])), 0)


@contextmanager
def whole_pastes() -> Iterator[None]:
    """Let Textual's driver read its input with PasteParser. Windows has a driver of its own, which is left alone."""
    original = linux_driver.XTermParser  # type: ignore[attr-defined]
    linux_driver.XTermParser = PasteParser  # type: ignore[attr-defined]
    try:
        yield
    finally:
        linux_driver.XTermParser = original  # type: ignore[attr-defined]
