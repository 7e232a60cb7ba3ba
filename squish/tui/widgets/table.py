"""A table of plain text in which the keys are the screen's, and columns are as wide as the screen allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from squish.tui.scheduling import after_refresh

_ROOMY = 100


class Column(msgspec.Struct, frozen=True):
    """width in cells, 0 for the one that takes what is left. from_width: the table's width at which it is shown.

    roomy: its width in a table of at least 100 cells, where that is another one.
    words: what has no room is left out by whole words.
    """

    title: str
    width: int
    right: bool = False
    from_width: int = 0
    roomy: int = 0
    words: bool = False

    def width_in(self, table: int) -> int:
        return self.roomy if self.roomy and table >= _ROOMY else self.width


class Table(DataTable[Text], inherit_bindings=False):
    """Rows are marked by key; a refill keeps the mark. Cells are text, never markup."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "cursor_up", "Up", show=False, id="table.up"),
        Binding("down", "cursor_down", "Down", show=False, id="table.down"),
        Binding("pageup", "page_up", "Page up", show=False, id="table.page_up"),
        Binding("pagedown", "page_down", "Page down", show=False, id="table.page_down"),
        Binding("home", "scroll_top", "First", show=False, id="table.first"),
        Binding("end", "scroll_bottom", "Last", show=False, id="table.last"),
    ]

    def __init__(self, columns: Sequence[Column], id: str) -> None:
        super().__init__(id=id, cursor_type="row", cell_padding=1)
        self._wanted = columns
        self._laid_out: tuple[int, ...] = ()
        self._widths: tuple[int, ...] = ()
        self.keys: list[str] = []
        self._cells: list[tuple[Text, ...]] = []

    @property
    def marked(self) -> str | None:
        """The key of the marked row."""
        return self.keys[self.cursor_row] if 0 <= self.cursor_row < len(self.keys) else None

    def fill(self, rows: Sequence[tuple[str, tuple[Text, ...]]]) -> None:
        """Show these rows: a key and a cell for every column, shown or not. Unchanged rows are left alone.

        To Rich a text is the same in another color of the whole, as another theme has it. Before its size is known,
        no column has a width: they are kept until then.
        """
        keys, cells = [key for key, _ in rows], [row for _, row in rows]
        if not self.size.width:
            self.keys, self._cells = keys, cells
            return
        shown = self._lay_out()
        if keys != self.keys or not self.row_count:
            self._refill(keys, cells, shown)
            return
        for at, (old, new) in enumerate(zip(self._cells, cells, strict=True)):
            if old is new:
                continue
            if old != new or any(one.style != other.style for one, other in zip(old, new, strict=True)):
                for column, index in enumerate(shown):
                    self.update_cell_at(Coordinate(at, column), self._fitted(index, new[index]))
        self._cells = cells

    def _refill(self, keys: list[str], cells: list[tuple[Text, ...]], shown: tuple[int, ...]) -> None:
        marked, scroll = self.marked, self.scroll_y
        self.clear()
        self.keys, self._cells = keys, cells
        self.add_rows([[self._fitted(index, row[index]) for index in shown] for row in cells])
        if marked in keys:
            self.move_cursor(row=keys.index(marked), scroll=False)
            self.scroll_to(y=scroll, animate=False)

    def on_resize(self) -> None:
        if self._cells:
            self.fill(list(zip(self.keys, self._cells, strict=True)))
            after_refresh(self, self._scroll_cursor_into_view)  # what stands below may have grown over the marked row

    def _lay_out(self) -> tuple[int, ...]:
        """The columns that have room, as indices; they are recomputed when the width changes."""
        width = self.scrollable_content_region.width or self.size.width
        shown = tuple(at for at, each in enumerate(self._wanted) if each.from_width <= width)
        if (width, *shown) != self._laid_out:
            self._laid_out = (width, *shown)
            self.clear(columns=True)
            widths = [column.width_in(width) for column in self._wanted]
            flexible = max(width - sum(widths[at] for at in shown) - 2 * len(shown), 12)
            self._widths = tuple(each or flexible for each in widths)
            for at in shown:
                self.add_column(self._fitted(at, Text(self._wanted[at].title)), width=self._widths[at])
        return shown

    def _fitted(self, index: int, cell: Text) -> Text:
        width, fitted = self._widths[index], cell.copy()
        words = fitted.plain[: width + 1].rpartition(" ")[0]
        if self._wanted[index].words and fitted.cell_len > width and words:
            fitted.right_crop(len(fitted) - len(words))
        fitted.truncate(width, overflow="ellipsis")
        if self._wanted[index].right:
            fitted.align("right", width)
        return fitted
