"""A text that grows: parts that will not change any more, and the tail, all that is looked at when more comes.

Every cut is made where the two sides look as the whole does. What comes later may still change a part, as when it ends
emphasis that began far above: that one paragraph is whole again then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from squish.tui.widgets.markdown.reopening import CLOSED, Reopening
from squish.tui.widgets.markdown.settled import Piece, Settled

if TYPE_CHECKING:  # Rich's Markdown and its highlighting are imported with the first answer
    from squish.tui.widgets.markdown.blocks import Cut
    from squish.tui.widgets.markdown.document import Document
    from squish.tui.widgets.markdown.parsing import References

TAIL_LINES = 24
WHOLE = 30_000
"""Characters of one block that are drawn as a whole: more of one is cut anywhere."""


class Drawing(Protocol):
    """Makes documents, and says which lines one makes in the width of the moment."""

    def make(self, text: str, opening: Reopening, references: References, is_cut: bool = False) -> Document: ...

    def lines(self, document: Document) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class _Place:
    """In a text: how what comes there begins. flows: it is within a line; marks: of markup that is open there."""

    opening: Reopening = CLOSED
    flows: bool = False
    marks: frozenset[str] = frozenset()

    @property
    def goes_on(self) -> bool:
        """Whether what was cut there may look better as a whole: colors of code depend on what is far above."""
        return self.opening.code or self.flows


@dataclass(slots=True)
class _Part:
    """before: where it begins; after: where the next one does."""

    text: str
    piece: Piece
    before: _Place
    after: _Place


class Growing:
    """settled: shows the parts."""

    def __init__(self, settled: Settled, drawing: Drawing) -> None:
        self.tail = ""
        self.parts: list[_Part] = []
        self.width = 0
        self._settled, self._drawing = settled, drawing
        self._place, self._next_try = _Place(), 0
        self._references: References = {}

    @property
    def is_large(self) -> bool:
        """Whether the tail is one block that cannot be cut, as a row of a table is, so that it costs more and more."""
        return len(self.tail) > self._limit

    @property
    def _limit(self) -> int:
        """Characters of the tail that are left alone where they make few lines."""
        from squish.tui.widgets.markdown.cut import LIMIT

        return max(LIMIT, 2 * TAIL_LINES * self.width)

    def add(self, text: str) -> None:
        """Text comes; what is complete is drawn for the last time."""
        from squish.tui.widgets.markdown.line_cut import goes_on

        self.tail += text
        if self._place.flows and not goes_on(self.tail, self._place.opening, self._place.marks):
            self._join_tail()
        self._cut()

    def _cut(self) -> None:
        from squish.tui.widgets.markdown.line_cut import cut_anywhere

        while (self.tail.count("\n") >= TAIL_LINES or self.is_large) and self._settle():
            pass
        if self.width and len(self.tail) > max(TAIL_LINES * self.width, self._next_try):
            self._settle_line()
        while len(self.tail) > WHOLE:
            self._set_apart(cut_anywhere(self.tail, self._place.opening))

    def document(self) -> Document:
        """The tail."""
        return self._try(self.tail, self._place.opening)

    def _try(self, text: str, opening: Reopening) -> Document:
        """A text that may still change: the addresses in it hold for nothing else."""
        return self._drawing.make(text, opening, dict(self._references))

    def _settle(self) -> bool:
        """Set apart what is complete of the tail; whether anything is."""
        from squish.tui.widgets.markdown.cut import cut

        found = cut(self.tail, self._place.opening, self._limit)
        if found is not None:
            self._set_apart(found)
        return found is not None

    def _settle_line(self) -> None:
        """The same for the first shown lines of a long one, which look as they will however it goes on."""
        from squish.tui.widgets.markdown.line_cut import cut_line

        def lines(text: str, opening: Reopening) -> list[str]:
            return self._drawing.lines(self._try(text, opening))

        if found := cut_line(self.tail, self._place.opening, lines, self._limit):
            self._set_apart(found)
        else:
            self._next_try = len(self.tail) * 5 // 4

    def _set_apart(self, found: Cut) -> None:
        place, self._place = self._place, _Place(found.opening, found.flows, found.marks)
        part = _Part(found.done, Piece(self._final(found.done, place, self._place), found.gap), place, self._place)
        self.parts.append(part)
        self._settled.add(part.piece)
        self.tail, self._next_try = found.rest, 0

    def _final(self, text: str, place: _Place, next_place: _Place) -> Document:
        is_cut = next_place.opening.code and not next_place.flows
        return self._drawing.make(text, place.opening, self._references, is_cut)

    # ---- what was cut becomes whole again

    def resize(self, width: int) -> bool:
        """Lines break elsewhere in another width, so those that were cut are whole again; whether the tail changed."""
        if width == self.width:
            return False
        before, self.width = self.tail, width
        for _ in self._join(lambda place: place.flows):
            pass
        self._cut()
        return self.tail != before

    def complete(self) -> Iterator[None]:
        """No more comes: draw as a whole what looks better so, and links whose addresses came after them. Comes back
        after each piece of work."""
        for _ in self._join(lambda place: place.goes_on):
            yield
        self._drawing.make(self.tail, self._place.opening, self._references)  # its addresses are complete now
        for part in [part for part in self.parts if self._references and "[" in part.text]:
            self._settled.draw_anew(part.piece, self._final(part.text, part.before, part.after))
            yield

    def _join(self, cut: Callable[[_Place], bool]) -> Iterator[bool]:
        """Make whole what was cut at places of a kind, unless it is too long."""
        runs = list[list[_Part]]()
        for part in self.parts:
            if runs and cut(part.before):
                runs[-1].append(part)
            else:
                runs.append([part])
        sizes = [sum(len(part.text) for part in run) for run in runs]
        if runs and cut(self._place) and sizes[-1] + len(self.tail) <= WHOLE:
            self._join_tail(runs.pop())
            yield True
        for run, size in zip(runs, sizes, strict=False):
            if len(run) > 1 and size <= WHOLE:
                self._join_run(run)
                yield True

    def _join_tail(self, run: list[_Part] | None = None) -> None:
        """run: the last parts; without them, those of the line that the tail is in."""
        if run is None:
            first = len(self.parts) - 1
            while self.parts[first].before.flows:
                first -= 1
            run = self.parts[first:]
        for part in reversed(run):
            self.tail = part.text + self._place.opening.shown(self.tail)
            self._place = part.before
        del self.parts[-len(run) :]
        self._settled.remove_pieces(part.piece for part in run)
        self._next_try = 0

    def _join_run(self, run: list[_Part]) -> None:
        first, *others = run
        for part in others:
            first.text += part.before.opening.shown(part.text)
            self.parts.remove(part)
        first.after, first.piece.gap = others[-1].after, others[-1].piece.gap
        self._settled.remove_pieces(part.piece for part in others)
        self._settled.draw_anew(first.piece, self._final(first.text, first.before, first.after))
