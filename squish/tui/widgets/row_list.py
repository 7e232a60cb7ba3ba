"""Textual's list of rows, one of them marked, that also works while it has no room on the screen."""

from __future__ import annotations

from textual._widget_navigation import Direction
from textual.widgets import OptionList


class RowList(OptionList):
    """Page keys do nothing while no row is visible; in Textual's own list they raise KeyError."""

    def _move_page(self, direction: Direction) -> None:
        if self.scrollable_content_region and self._lines:
            super()._move_page(direction)

    def page(self, pages: int) -> None:
        """Move the mark a page down, or up."""
        self._move_page(1 if pages > 0 else -1)
