"""The terminal while the app runs: native libraries are kept off it, what is pasted arrives whole, and nothing that
controls a terminal is drawn on it.

File descriptor 2 leads to a log file. Textual draws on `sys.__stderr__`, so that one is moved to a duplicate of the
terminal first. Knows no app.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.segment import Segment
from textual._xterm_parser import XTermParser
from textual.color import Color
from textual.drivers import linux_driver
from textual.drivers._writer_thread import WriterThread
from textual.events import Key, Paste
from textual.filter import LineFilter
from textual.message import Message

from squish.text import clean

_WITH_ALT = {"\r": "alt+enter", "\x08": "alt+backspace"}  # sent in a form that Textual does not know
_PASTE, _PASTED = "\x1b[200~", "\x1b[201~"
_ESCAPE = "an escape before other keys"


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


class PasteParser(XTermParser):
    """Takes a paste as one text, whatever is in it; Textual's own ends it at the first escape character.

    It is far quicker, too: Textual looks at every character by itself.
    """

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._pasting = False
        self._pasted = ""
        self._passed = ""  # the last characters that Textual's parser got, in which a paste may have begun

    def feed(self, data: str) -> Iterable[Message]:
        if not data:  # the end of all input
            yield from super().feed(data)
        while data:
            if self._pasting:
                self._pasted, mark, data = (self._pasted + data).partition(_PASTED)
                if mark:
                    self._pasting = False
                    yield Paste(self._pasted.replace("\x00", ""))
                continue
            known, before = len(self._passed), self._passed + data
            at = before.find(_PASTE)
            if at < 0:
                self._passed = before[1 - len(_PASTE) :]
                yield from map(_escape, super().feed(data))
                return
            # Textual begins a paste when the mark was cut: what it takes for one ends at once and is left out.
            keys = data[: at - known] if at >= known else _PASTE[known - at :] + _PASTED
            parsed = super().feed(keys) if keys else ()
            yield from (_escape(each) for each in parsed if not isinstance(each, Paste))
            data, self._pasting, self._pasted, self._passed = before[at + len(_PASTE) :], True, "", ""

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[Key]:
        """Alt with a key is sent as escape and that key. Where Textual knows no such key, they were two keys, and it
        would drop the escape.

        An escape key alone is asked for only where it stood before keys that came quickly: Textual makes "^" of it.
        """
        if sequence == "\x1b" and not alt:
            yield Key(_ESCAPE, None)
            return
        keys = list(super()._sequence_to_key_events(sequence, alt))
        if alt and sequence in _WITH_ALT:
            keys = [Key(_WITH_ALT[sequence], None)]
        if alt and keys and not keys[0].key.startswith("alt+"):
            yield Key("escape", "\x1b")
        yield from keys


def _escape(message: Message) -> Message:
    return Key("escape", "\x1b") if isinstance(message, Key) and message.key == _ESCAPE else message


class SteadyWriter(WriterThread):
    """Textual's own dies with the terminal, and whoever writes after that waits for it forever."""

    def run(self) -> None:
        try:
            super().run()
        except OSError:
            while self._queue.get() is not None:
                pass


@contextmanager
def own_driver_parts() -> Iterator[None]:
    """Let Textual's driver read with PasteParser and write with SteadyWriter. Windows has a driver of its own, which is
    left alone.
    """
    ours = {"XTermParser": PasteParser, "WriterThread": SteadyWriter}
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
