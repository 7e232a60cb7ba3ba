"""Every byte the command line prints: answers and data on stdout, all talk on stderr.

Colors and movement only on a terminal that wants them (NO_COLOR is honored); everything reads well without.
It knows how things look, not what they mean.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Event, RLock, Thread
from typing import Any, TextIO

from squish import figures
from squish.errors import SquishError
from squish.text import StreamCleaner, clean

_PLAIN_INTERVAL = 5.0
_DRAW_INTERVAL = 0.1
_TICK = 1.0  # seconds
_UNKNOWN = 80  # columns of a terminal that does not say how many it has
_INDENT = " " * len("squish: ")


def out(text: str = "") -> None:
    """A line of data on stdout: on a terminal without escape sequences, elsewhere as it is."""
    shown = clean(text) if sys.stdout.isatty() else text
    print(_encodable(sys.stdout, shown), flush=True)


def note(text: str = "") -> None:
    """A line of talk on stderr; parts of it may not be ours."""
    _note(_broken(clean(text)))


def _note(text: str) -> None:
    print(_encodable(sys.stderr, text), file=sys.stderr, flush=True)


def note_over_status(text: str) -> None:
    """A line of talk in the place of the status line that may stand there."""
    wipe_status()
    note(text)


def wipe_status() -> None:
    """Take away the status line that may stand where the next line of talk goes."""
    if fancy(sys.stderr):
        sys.stderr.write("\r\x1b[2K")
        sys.stderr.flush()


def dim(text: str) -> None:
    """A line of talk on stderr that steps back where the terminal can show it."""
    shown = _broken(clean(text))
    _note(f"\x1b[2m{shown}\x1b[0m" if fancy(sys.stderr) else shown)


def out_json(value: Any) -> None:
    """One JSON value on stdout."""
    out(json.dumps(value, indent=2, ensure_ascii=not _utf8(sys.stdout)))


def error(problem: SquishError) -> None:
    """An error and its hint on stderr."""
    note(f"squish: {problem.message}")
    if problem.hint:
        note(f"{_INDENT}{problem.hint}")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> None:
    """Aligned columns on stdout. right: columns of numbers."""
    cells = [list(headers), *([" ".join(clean(cell).split()) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    for row in cells:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        out("  ".join(padded).rstrip())


def fancy(stream: TextIO) -> bool:
    """Whether colors and cursor movement are welcome on this stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class AnswerPrinter:
    """What a model writes, as it arrives: its answer on stdout, or its thoughts on stderr.

    On a terminal without escape sequences, elsewhere as it is.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._cleaner = StreamCleaner() if self._stream.isatty() else None
        self._ends_line = True

    def write(self, text: str) -> None:
        shown = self._cleaner.feed(text) if self._cleaner else text
        if shown:
            self._ends_line = shown.endswith("\n")
            self._stream.write(_encodable(self._stream, shown))
            self._stream.flush()

    def end(self) -> None:
        """Finish the line."""
        rest = self._cleaner.flush() if self._cleaner else ""
        if rest or not self._ends_line:
            self._stream.write(_encodable(self._stream, rest) + "\n")
        self._ends_line = True
        self._stream.flush()


class Status:
    """One line on stderr that is rewritten in place: on a terminal at once, elsewhere as a line every few seconds."""

    def __init__(self) -> None:
        self.is_live = fancy(sys.stderr)
        self._shown = False
        self._last = 0.0 if self.is_live else time.monotonic()  # what is over soon is not worth a line
        self._lock = RLock()
        self._waits: tuple[str, float] | None = None  # for what, and since when
        self._ticks: Event | None = None  # set to end the thread that draws the seconds

    def show(self, text: str) -> None:
        with self._lock:
            self._waits = None
            self._draw(text)

    def wait(self, text: str, since: float | None = None) -> None:
        """Show what is waited for, with the seconds since then, until something else is shown or it is cleared."""
        with self._lock:
            self._waits = (text, time.monotonic() if since is None else since)
            self._draw_wait()
            if self._ticks is None:
                self._ticks = Event()
                Thread(target=self._tick, args=(self._ticks,), daemon=True, name="status line").start()

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show the same meanwhile, and nothing of it afterwards."""
        self.wait(text)
        try:
            yield
        finally:
            self.clear()

    def on_terminal(self, text: str) -> AbstractContextManager[None]:
        """The same on a terminal; elsewhere a log is not told of it."""
        return self.waiting(text) if self.is_live else nullcontext()

    def clear(self) -> None:
        """Take the line away; what comes next starts at the margin, at once."""
        with self._lock:
            self._waits = None
            if self._ticks is not None:
                self._ticks.set()
                self._ticks = None
            if self._shown:
                sys.stderr.write("\r\x1b[2K")
                sys.stderr.flush()
            self._shown = False
            self._last = 0.0 if self.is_live else self._last

    def _tick(self, over: Event) -> None:
        while not over.wait(_TICK):
            with self._lock:
                if not over.is_set():
                    self._draw_wait()

    def _draw_wait(self) -> None:
        if self._waits:
            text, since = self._waits
            seconds = time.monotonic() - since
            self._draw(f"{text}  {figures.waited(seconds)}" if seconds >= _TICK else text)

    def _draw(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last < (_DRAW_INTERVAL if self.is_live else _PLAIN_INTERVAL):
            return
        self._last = now
        if not self.is_live:
            note(text)
            return
        sys.stderr.write(f"\r\x1b[2K\x1b[2m{clean(text)[: (_columns() or _UNKNOWN) - 1]}\x1b[0m")
        sys.stderr.flush()
        self._shown = True


def _broken(text: str) -> str:
    """On a terminal, lines that are too long for it end at spaces, where it would break them inside words."""
    if not (columns := _columns()):
        return text
    return "\n".join(_folded(line, columns) if len(line) > columns else line for line in text.split("\n"))


def _columns() -> int:
    """Of the terminal that stderr is; 0 where it is none, or does not say."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else 0
    except OSError:  # a stream of this process alone
        return 0


def _folded(line: str, columns: int) -> str:
    indent = _INDENT if line.startswith("squish: ") else line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line, columns, subsequent_indent=indent, replace_whitespace=False, expand_tabs=False,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _encodable(stream: TextIO, text: str) -> str:
    """Text that this stream can take, whatever the locale says."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, errors="replace").decode(encoding)


def _utf8(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") == "utf8"
