"""A list of rows, of which one is marked: Textual's, which may also have no room, or not have it yet."""

from __future__ import annotations

from textual._widget_navigation import Direction
from textual.widgets import OptionList


class RowList(OptionList):
    """Where no row can be seen, there is no page to move by: Textual's own would raise KeyError."""

    def _move_page(self, direction: Direction) -> None:
        if self.scrollable_content_region and self._lines:
            super()._move_page(direction)
