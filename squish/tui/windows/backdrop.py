"""What a window lets be seen of the screen below it, dimmed: each line is made once, and again when it has changed.

Textual renders all of that screen again, and dims it again, whenever anything changes of it or of the window.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.geometry import Region, Size
from textual.renderables.background_screen import BackgroundScreen
from textual.strip import Strip

from squish.tui.fitted_screen import FittedScreen


class Backdrop:
    """The lines of a screen behind a color that lets it be seen."""

    def __init__(self) -> None:
        self._of: tuple[object, ...] = ()
        self._lines: dict[int, Strip] = {}
        self._dimmed: dict[Style | None, Style] = {}

    def forget(self, regions: tuple[Region, ...] | None = None) -> None:
        """What is there has changed, or all has."""
        if regions is None:
            self._lines.clear()
            return
        for region in regions:
            for y in region.line_range:
                self._lines.pop(y, None)

    def line(self, y: int, below: FittedScreen[Any], color: Color, base: Style, size: Size) -> Strip:
        """base: of what has no style of its own. Blank below the end: a window that has become smaller is asked for the
        lines that it had until it is laid out again."""
        if y >= size.height:
            return Strip.blank(size.width, base)
        if self._of != (below, color, base, size):
            self._of = (below, color, base, size)
            self._lines.clear()
            self._dimmed.clear()
        if y not in self._lines:
            self._make(below, color, base, size)
        return self._lines[y]

    def _make(self, below: FittedScreen[Any], color: Color, base: Style, size: Size) -> None:
        """All that are missing: to make one alone is nearly as much work as all those next to it."""
        missing = [y for y in range(size.height) if y not in self._lines]
        for _, run in groupby(enumerate(missing), key=lambda pair: pair[1] - pair[0]):
            rows = [y for _, y in run]
            for y, strip in zip(rows, below.rows(Region(0, rows[0], size.width, len(rows))), strict=False):
                dimmed = [Segment(text, self._dim(style, color, base)) for text, style, control in strip if not control]
                self._lines[y] = Strip(dimmed, strip.cell_length)
        for y in missing:
            self._lines.setdefault(y, Strip.blank(size.width))  # the screen is not laid out for this size yet

    def _dim(self, style: Style | None, color: Color, base: Style) -> Style:
        if style not in self._dimmed:
            [segment] = BackgroundScreen.process_segments([Segment("", style)], color)
            self._dimmed[style] = base + segment.style
        return self._dimmed[style]
