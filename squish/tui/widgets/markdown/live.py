"""Markdown that a model writes: drawn block by block while it grows, one plain widget when it has become the past."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.events import Resize
from textual.timer import Timer

from squish.text import clean
from squish.tui.scheduling import after_refresh
from squish.tui.widgets.markdown.searchable import Searchable

if TYPE_CHECKING:  # Rich's Markdown and its highlighting are imported with the first answer
    from squish.tui.widgets.markdown.cut import Cut
    from squish.tui.widgets.markdown.document import Document, References

MIN_INTERVAL = 0.05
COST_FACTOR = 4
TAIL_LINES = 24
BURST = 2000
"""Characters that one update takes at most: a server may send a whole book at once, and keys wait meanwhile."""


class FlushPacer:
    """When text that arrives may be put on the screen: at least 50 ms apart, and four times what the last time cost.

    A long list costs 50 times what prose costs, so a fixed rhythm would either stutter or take a whole core.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def delay(self, now: float) -> float:
        """Seconds to wait."""
        return max(self._next - now, 0.0)

    def flushed(self, start: float, end: float) -> None:
        self._next = start + max(MIN_INTERVAL, COST_FACTOR * (end - start))


@dataclass(slots=True)
class _Part:
    """What will not change any more. before: where it begins."""

    text: str
    widget: Searchable
    before: _Place


@dataclass(frozen=True, slots=True)
class _Place:
    """In an answer. fences: blocks of code so far; continues: it is within one; flows: it is within a paragraph."""

    fences: int = 0
    continues: bool = False
    flows: bool = False

    def after(self, found: Cut) -> _Place:
        """At the end of what was cut off."""
        begun = found.fences - (1 if self.continues and found.fences else 0)
        return _Place(self.fences + begun, found.continues)


class LiveMarkdown(Vertical):
    """Markdown that text is written to. Nothing is drawn while `may_flush` says no; `resume` and `finish` catch up.

    What is complete is drawn once and left alone. Only the tail, the last lines, is redrawn when text comes, so that
    an update costs the same however long the answer is.
    """

    def __init__(self, may_flush: Callable[[], bool], text: str = "") -> None:
        super().__init__(classes="live")
        self.flushes = 0
        self.source = ""
        self._may_flush = may_flush
        self._pending = text
        self._pacer = FlushPacer()
        self._flush_timer: Timer | None = None
        self._parts: list[_Part] = []
        self._tail = Searchable(classes="tail", markup=False)
        self._tail_text, self._place = "", _Place()
        self._width, self._next_try = 0, 0
        self._references: References = {}

    def compose(self) -> ComposeResult:
        yield self._tail

    def on_mount(self) -> None:
        self.resume()

    @property
    def tail_lines(self) -> int:
        """Lines that the next update looks at."""
        return self._tail_text.count("\n") + 1

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
            self._draw_pending()
            await asyncio.sleep(0)
        self._join(lambda place: place.continues or place.flows)
        if self._references:  # links whose addresses came after them
            for part in self._parts:
                if "[" in part.text:
                    part.widget.update(self._at(part.before, part.text))

    def _flush(self) -> None:
        self._flush_timer = None
        if self._may_flush():
            if self._pacer.delay(time.perf_counter()) <= 0:
                self._draw_pending()
            self.resume()

    def _draw_pending(self) -> None:
        if not self._pending or not self.is_attached:
            return
        start = time.perf_counter()
        text, self._pending = clean(self._pending[:BURST]), self._pending[BURST:]
        self.source += text
        self._tail_text += text
        while self.tail_lines > TAIL_LINES and self._settle():
            pass
        if len(self._tail_text) > max(TAIL_LINES * self._width, self._next_try, 1):
            self._settle_paragraph()
        self._tail.update(self._document(self._tail_text))
        self._pacer.flushed(start, time.perf_counter())
        after_refresh(self, self._painted, start)
        self.flushes += 1

    def _painted(self, start: float) -> None:
        """It is on the screen: laying it out and painting cost more than drawing it did."""
        self._pacer.flushed(start, time.perf_counter())

    def _document(self, text: str) -> Document:
        """A text that comes after all parts."""
        return self._at(self._place, text)

    def _at(self, place: _Place, text: str) -> Document:
        return document(self.app, text, place.fences, place.continues, self._references)

    def _settle(self) -> bool:
        """Draw what is complete of the tail for the last time; whether anything is."""
        from squish.tui.widgets.markdown.cut import cut

        found = cut(self._tail_text)
        if found is None:
            return False
        self._set_apart(found, self._place.after(found))
        return True

    def _settle_paragraph(self) -> None:
        """The same for the first lines of a long paragraph, which look as they will however it goes on."""
        from squish.tui.widgets.markdown.paragraph_cut import cut_paragraph

        if self._place.continues:
            return
        if found := cut_paragraph(self._tail_text, self._lines):
            self._set_apart(found, replace(self._place, flows=True))
            self._next_try = 0
        else:
            self._next_try = len(self._tail_text) * 5 // 4

    def _lines(self, text: str) -> list[str]:
        console = self.app.console
        options = console.options.update(width=self._width, height=None, highlight=False)
        lines = console.render_lines(self._document(text), options, pad=False)
        return ["".join(piece.text for piece in line).rstrip() for line in lines]

    def _set_apart(self, found: Cut, place: _Place) -> None:
        """Draw the first part of the tail for the last time. place: where the rest begins."""
        widget = Searchable(self._document(found.done), classes="part -gap" if found.gap else "part", markup=False)
        self._parts.append(_Part(found.done, widget, self._place))
        self.mount(widget, before=self._tail)
        self._tail_text, self._place = found.rest, place

    def on_resize(self, event: Resize) -> None:
        """Lines break elsewhere in another width: paragraphs that were cut are whole again."""
        before, self._width = self._width, event.size.width
        if before not in (0, self._width):
            self._join(lambda place: place.flows)

    def _join(self, within: Callable[[_Place], bool]) -> None:
        """Draw what was cut as a whole: in a block of code, what a line means may depend on one far above."""
        while self._parts and within(self._place):
            part = self._parts.pop()
            self._tail_text = _joined(part.text, self._tail_text, self._place)
            self._place = part.before
            self._tail.update(self._document(self._tail_text))
            part.widget.remove()
        for before, part in reversed(list(pairwise(self._parts))):
            if within(part.before):
                before.text = _joined(before.text, part.text, part.before)
                before.widget.update(self._at(before.before, before.text))
                before.widget.set_class(part.widget.has_class("-gap"), "-gap")
                part.widget.remove()
                self._parts.remove(part)


def _joined(first: str, second: str, place: _Place) -> str:
    from squish.tui.widgets.markdown.cut import joined

    return joined(first, second) if place.continues else first + second


def document(
    app: App[None], text: str, fences: int = 0, continues: bool = False, references: References | None = None
) -> Document:
    """A text in the app's colors of the moment; what follows it as in Document."""
    from squish.tui.widgets.markdown.document import Document, Palette

    def palette() -> Palette:
        return Palette.of(app.theme_variables, app.current_theme.dark)

    return Document(text, palette, fences, continues, references)


def frozen(app: App[None], text: str) -> Searchable:
    """The same text as one widget: a resize of sixty live answers takes seconds, of sixty of these a fifth of one."""
    return Searchable(document(app, text), classes="frozen")
