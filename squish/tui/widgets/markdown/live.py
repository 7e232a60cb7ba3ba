"""Markdown that a model writes: drawn block by block while it grows, one plain widget when it has become the past."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.events import Resize
from textual.timer import Timer

from squish.text import clean
from squish.tui.scheduling import after_message, after_refresh
from squish.tui.widgets.markdown.growing import Growing
from squish.tui.widgets.markdown.pacing import FlushPacer
from squish.tui.widgets.markdown.reopening import CLOSED, Reopening
from squish.tui.widgets.markdown.searchable import Searchable
from squish.tui.widgets.markdown.settled import Settled

if TYPE_CHECKING:  # Rich's Markdown and its highlighting are imported with the first answer
    from squish.tui.widgets.markdown.document import Document
    from squish.tui.widgets.markdown.parsing import References

BURST = 2000
"""Characters that one update takes at most: a server may send a whole book at once, and keys wait meanwhile."""
_SHARE = 16


class LiveMarkdown(Vertical):
    """Markdown that text is written to. Nothing is drawn while `may_flush` says no; `resume` and `finish` catch up.

    What is complete is drawn once and left alone. Only the tail, the last lines, is redrawn when text comes, so that
    an update costs the same however long the answer is.

    is_complete: the text is all there will be.
    """

    def __init__(self, may_flush: Callable[[], bool], text: str = "", is_complete: bool = False) -> None:
        super().__init__(classes="live")
        self.flushes = 0
        self.source = ""
        self._may_flush = may_flush
        self._pending, self._is_complete = text, is_complete
        self._pacer = FlushPacer()
        self._flush_timer: Timer | None = None
        self._settled, self._tail = Settled(), Searchable(classes="tail", markup=False)
        self._growing = Growing(self._settled, self)
        self._drawn = 0

    def compose(self) -> ComposeResult:
        yield self._settled
        yield self._tail

    def on_mount(self) -> None:
        self._tail.display = False  # nothing takes a line before the first word
        self.resume()

    def write(self, text: str) -> None:
        """Add text; it appears with the next flush."""
        if text:
            self._pending += text
            self.resume()

    def resume(self) -> None:
        """Plan a flush when there is something to show."""
        if self._pending and self._flush_timer is None and self.is_running and self._may_flush():
            self._flush_timer = self.set_timer(max(self._pacer.delay(time.perf_counter()), 0.001), self._flush)

    async def finish(self) -> None:
        """Show all that was written, wherever the user has scrolled to."""
        if self._flush_timer:
            self._flush_timer.stop()
            self._flush_timer = None
        while self._pending and self.is_attached:
            start = time.perf_counter()
            self._draw_pending()
            await asyncio.sleep(time.perf_counter() - start)  # as long again for keys, and for painting it
        for _ in self._growing.complete():
            if not self.is_attached:
                return
            await asyncio.sleep(0)
        self._draw_tail()

    def _flush(self) -> None:
        self._flush_timer = None
        if self._may_flush():
            if self._pacer.delay(time.perf_counter()) <= 0:
                self._draw_pending()
            self.resume()
            if self._is_complete and not self._pending:
                after_message(self, self.finish)

    def _draw_pending(self) -> None:
        if not self._pending or not self.is_attached:
            return
        start = time.perf_counter()
        text, self._pending = clean(self._pending[:BURST]), self._pending[BURST:]
        self.source += text
        self._growing.add(text)
        self._tail.display = self._tail.display or bool(text.strip())
        if (
            "\n" in text
            or not self._growing.is_large
            or len(self.source) - self._drawn > len(self._growing.tail) // _SHARE
        ):
            self._draw_tail()
        self._pacer.flushed(start, time.perf_counter())
        after_refresh(self, self._painted, start)
        self.flushes += 1

    def _draw_tail(self) -> None:
        self._tail.update(self._growing.document())
        self._drawn = len(self.source)

    def _painted(self, start: float) -> None:
        """It is on the screen: laying it out and painting cost more than drawing it did."""
        self._pacer.flushed(start, time.perf_counter())

    def on_resize(self, event: Resize) -> None:
        if self._growing.resize(event.size.width):
            self._draw_tail()

    # ---- what Growing asks for

    def make(self, text: str, opening: Reopening, references: References, is_cut: bool = False) -> Document:
        return document(self.app, text, opening, references, is_cut)

    def lines(self, document: Document) -> list[str]:
        console = self.app.console
        options = console.options.update(width=self._growing.width, height=None, highlight=False)
        drawn = console.render_lines(document, options, pad=False)
        return ["".join(piece.text for piece in line).rstrip() for line in drawn]


def document(
    app: App[None],
    text: str,
    opening: Reopening = CLOSED,
    references: References | None = None,
    is_cut: bool = False,
) -> Document:
    """A text in the app's colors of the moment; what follows it as in Document."""
    from squish.tui.widgets.markdown.document import Document
    from squish.tui.widgets.markdown.palette import Palette

    def palette() -> Palette:
        return Palette.of(app.theme_variables, app.current_theme.dark)

    return Document(text, palette, opening, references, is_cut)


def frozen(app: App[None], text: str) -> Searchable:
    """The same text as one widget: a resize of sixty live answers takes seconds, of sixty of these a fifth of one."""
    return Searchable(document(app, text), classes="frozen")
