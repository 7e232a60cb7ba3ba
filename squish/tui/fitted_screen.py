"""What all screens have in common: they are laid out for the size that the terminal has, not for those that it had.

Textual tells a screen every size, and the screen tells itself, and those below, the size that it was laid out for. Of
two sizes that are on their way at the same time each would bring back the other, without end, and nothing else would
be done any more.
"""

from __future__ import annotations

from typing import TypeVar

from textual.geometry import Size
from textual.screen import Screen

Result = TypeVar("Result")


class FittedScreen(Screen[Result]):
    """Laid out for the size of the terminal alone."""

    def _screen_resized(self, size: Size) -> None:
        if size == self.app.size:
            super()._screen_resized(size)
