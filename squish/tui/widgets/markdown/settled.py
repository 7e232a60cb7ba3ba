"""Pieces of Markdown one below the other that will not change any more: each is laid out once in each width.

They are one widget. As many widgets, they would all be measured again whenever one more comes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from textual.geometry import Size
from textual.strip import Strip
from textual.visual import Visual, visualize

from squish.tui.widgets.markdown.searchable import Searchable

if TYPE_CHECKING:
    from squish.tui.widgets.markdown.document import Document


class Piece:
    """A document and the empty line below it, if there is one."""

    def __init__(self, document: Document, gap: bool) -> None:
        self.document, self.gap = document, gap
        self.look: object = None
        self.strips: Sequence[Strip] = ()


class Settled(Searchable):
    """Grows at its end."""

    def __init__(self) -> None:
        super().__init__(classes="settled", markup=False)
        self.pieces: list[Piece] = []
        self._ends: list[int] = []  # the line after each piece that has been measured
        self._measured_for = 0
        self.display = False

    @property
    def drawn_by_rich(self) -> bool:
        return True

    def add(self, piece: Piece) -> None:
        """Show one more at the end."""
        self.pieces.append(piece)
        self._changed(len(self.pieces) - 1)

    def draw_anew(self, piece: Piece, document: Document) -> None:
        """Show another document in the place of one."""
        piece.document, piece.look = document, None
        self._changed(self.pieces.index(piece))

    def remove_pieces(self, pieces: Iterable[Piece]) -> None:
        """Show some no more."""
        gone = set(map(id, pieces))
        first = next((at for at, each in enumerate(self.pieces) if id(each) in gone), len(self.pieces))
        self.pieces = [each for each in self.pieces if id(each) not in gone]
        self._changed(first)

    def _changed(self, first: int) -> None:
        del self._ends[first:]
        self.display = bool(self.pieces)
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        if width != self._measured_for:
            self._measured_for, self._ends = width, []
        for piece in self.pieces[len(self._ends) :]:
            end = self._ends[-1] if self._ends else 0
            self._ends.append(end + len(self._strips(piece, width)) + piece.gap)
        return self._ends[-1] if self._ends else 0

    def _strips(self, piece: Piece, width: int) -> Sequence[Strip]:
        look = width, self.app.theme, self.visual_style
        if piece.look != look:
            visual = visualize(self, piece.document, markup=False)
            piece.strips, piece.look = Visual.to_strips(self, visual, width, None, self.visual_style), look
        return piece.strips

    def line(self, y: int) -> Strip:
        at = bisect_right(self._ends, y)
        width = self.size.width
        if at < len(self._ends) and width == self._measured_for:
            strips = self._strips(self.pieces[at], width)
            row = y - (self._ends[at - 1] if at else 0)
            if row < len(strips):
                return strips[row]
        return Strip.blank(width, self.visual_style.rich_style)
