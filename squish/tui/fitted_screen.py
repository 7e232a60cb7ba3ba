"""What all screens have in common: they are laid out for the size that the terminal has, not for those that it had,
and the mouse meets nothing that was removed.

Textual tells a screen every size, and the screen tells itself, and those below, the size that it was laid out for. Of
two sizes that are on their way at the same time each would bring back the other, without end, and nothing else would
be done any more.
"""

from __future__ import annotations

from typing import TypeVar

from textual.geometry import Offset, Size
from textual.screen import Screen
from textual.widget import Widget

Result = TypeVar("Result")


class FittedScreen(Screen[Result]):
    """As it is now: its size, and what is on it."""

    def _screen_resized(self, size: Size) -> None:
        if size == self.app.size:
            super()._screen_resized(size)

    def get_widget_and_offset_at(self, x: int, y: int) -> tuple[Widget | None, Offset | None]:
        """What is drawn there; nothing for what was removed since, whose parent Textual would look for."""
        widget, offset = super().get_widget_and_offset_at(x, y)
        return (widget, offset) if widget is not None and widget.parent is not None else (None, None)
