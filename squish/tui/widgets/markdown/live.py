"""Markdown that a model writes: drawn block by block while it grows, one plain widget when it has become the past."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.events import Resize
from textual.timer import Timer

from squish.text import clean
from squish.tui.scheduling import after_refresh
from squish.tui.widgets.markdown.reopening import CLOSED, Reopening
from squish.tui.widgets.markdown.searchable import Searchable
from squish.tui.widgets.markdown.settled import Piece, Settled

if TYPE_CHECKING:  # Rich's Markdown and its highlighting are imported with the first answer
    from squish.tui.widgets.markdown.cut import Cut
    from squish.tui.widgets.markdown.document import Columns, Document, References

MIN_INTERVAL = 0.05
COST_FACTOR = 4
TAIL_LINES = 24
WHOLE = 30_000
"""Characters of one block that are drawn as a whole when the answer is complete."""
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
    piece: Piece
    before: _Place


@dataclass(frozen=True, slots=True)
class _Place:
    """In an answer: how what comes there begins. flows: it is within a paragraph; columns: of the table it is in."""

    opening: Reopening = CLOSED
    flows: bool = False
    columns: Columns | None = None

    @property
    def goes_on(self) -> bool:
        """Whether what was cut there may look better as a whole."""
        return self.opening.code or self.opening.table or self.flows


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
        self._settled, self._tail = Settled(), Searchable(classes="tail", markup=False)
        self._tail_text, self._place = "", _Place()
        self._width, self._next_try = 0, 0
        self._references: References = {}

    def compose(self) -> ComposeResult:
        yield self._settled
        yield self._tail

    def on_mount(self) -> None:
        self._tail.display = False  # nothing takes a line before the first word
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
            start = time.perf_counter()
            self._draw_pending()
            await asyncio.sleep(time.perf_counter() - start)  # as long again for keys, and for painting it
        for _ in self._join(lambda place: place.goes_on, WHOLE):
            await asyncio.sleep(0)
        if self._references:  # links whose addresses came after them
            for part in list(self._parts):
                if "[" in part.text and self.is_attached:
                    self._settled.draw_anew(part.piece, self._at(part.before, part.text))
                    await asyncio.sleep(0)

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
        while (self.tail_lines > TAIL_LINES or len(self._tail_text) > self._limit) and self._settle():
            pass
        if len(self._tail_text) > max(TAIL_LINES * self._width, self._next_try, 1):
            self._settle_paragraph()
        self._tail.update(self._document(self._tail_text))
        self._tail.display = self._tail.display or bool(text.strip())
        self._pacer.flushed(start, time.perf_counter())
        after_refresh(self, self._painted, start)
        self.flushes += 1

    def _painted(self, start: float) -> None:
        """It is on the screen: laying it out and painting cost more than drawing it did."""
        self._pacer.flushed(start, time.perf_counter())

    @property
    def _limit(self) -> int:
        """Characters that the tail has at most where it can be cut only roughly."""
        from squish.tui.widgets.markdown.cut import LIMIT

        return max(LIMIT, 2 * TAIL_LINES * self._width)

    def _document(self, text: str) -> Document:
        """A text that comes after all parts."""
        return self._at(self._place, text)

    def _at(self, place: _Place, text: str) -> Document:
        return document(self.app, text, place.opening, self._references, place.columns)

    def _settle(self) -> bool:
        """Draw what is complete of the tail for the last time; whether anything is."""
        from squish.tui.widgets.markdown.cut import cut
        from squish.tui.widgets.markdown.document import Columns

        found = cut(self._tail_text, self._place.opening, self._limit)
        if found is None:
            return False
        columns = None
        if found.opening.table:
            columns = self._place.columns or Columns()
            self._place = replace(self._place, columns=columns)
        self._set_apart(found, _Place(found.opening, found.rough, columns))
        return True

    def _settle_paragraph(self) -> None:
        """The same for the first lines of a long paragraph, which look as they will however it goes on."""
        from squish.tui.widgets.markdown.paragraph_cut import cut_paragraph

        if self._place.opening.head:
            return
        if found := cut_paragraph(self._tail_text, self._lines):
            opening = replace(found.opening, fences=self._place.opening.fences)
            self._set_apart(found, _Place(opening, flows=True))
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
        piece = Piece(self._document(found.done), found.gap)
        self._parts.append(_Part(found.done, piece, self._place))
        self._settled.add(piece)
        self._tail_text, self._place = found.rest, place

    def on_resize(self, event: Resize) -> None:
        """Lines break elsewhere in another width: paragraphs that were cut are whole again."""
        before, self._width = self._width, event.size.width
        if before not in (0, self._width):
            for _ in self._join(lambda place: place.flows, self._limit):
                pass

    def _join(self, cut: Callable[[_Place], bool], most: int) -> Iterator[None]:
        """Draw what was cut as a whole: in a block of code, what a line means may depend on one far above.

        cut: whether it was, at a place. most: characters that are drawn at once; what is longer stays as it is. Comes
        back after each one.
        """
        runs = list[list[_Part]]()
        for part in self._parts:
            if runs and cut(part.before):
                runs[-1].append(part)
            else:
                runs.append([part])
        whole = [(run, sum(len(part.text) for part in run)) for run in runs]
        if whole and cut(self._place):
            run, size = whole.pop()
            if size + len(self._tail_text) <= most:
                self._join_tail(run)
                yield
        for run, size in whole:
            if len(run) > 1 and size <= most:
                self._join_run(run)
                yield

    def _join_tail(self, run: list[_Part]) -> None:
        for part in reversed(run):
            self._tail_text = part.text + self._place.opening.shown(self._tail_text)
            self._place = part.before
        del self._parts[-len(run) :]
        self._settled.remove_pieces(part.piece for part in run)
        self._tail.update(self._document(self._tail_text))

    def _join_run(self, run: list[_Part]) -> None:
        first, *others = run
        for part in others:
            first.text += part.before.opening.shown(part.text)
            self._parts.remove(part)
        first.piece.gap = others[-1].piece.gap
        self._settled.remove_pieces(part.piece for part in others)
        self._settled.draw_anew(first.piece, self._at(first.before, first.text))


def document(
    app: App[None],
    text: str,
    opening: Reopening = CLOSED,
    references: References | None = None,
    columns: Columns | None = None,
) -> Document:
    """A text in the app's colors of the moment; what follows it as in Document."""
    from squish.tui.widgets.markdown.document import Document, Palette

    def palette() -> Palette:
        return Palette.of(app.theme_variables, app.current_theme.dark)

    return Document(text, palette, opening, references, columns)


def frozen(app: App[None], text: str) -> Searchable:
    """The same text as one widget: a resize of sixty live answers takes seconds, of sixty of these a fifth of one."""
    return Searchable(document(app, text), classes="frozen")
