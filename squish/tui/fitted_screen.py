"""What all screens have in common: they are laid out for the size that the terminal has, not for those that it had,
and the mouse meets nothing that was removed.

Textual tells a screen every size, and the screen tells itself, and those below, the size that it was laid out for. Of
two sizes that are on their way at the same time each would bring back the other, without end, and nothing else would
be done any more.

And it is laid out and drawn once for what it was told at once: Textual lays out a window that opens twice, and the
screen below it again, and draws all of both three times. Of a change, only what it touches is drawn: Textual renders
every widget of the screen again, a long list beside the answer that grows as well; and below a window, all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from textual._compositor import ChopsUpdate, Compositor
from textual.geometry import Offset, Region, Size
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

from squish.tui import notices

Result = TypeVar("Result")


class _ChangedParts(Compositor):
    """Renders for an update of the screen only the widgets that are in what has changed."""

    def __init__(self) -> None:
        super().__init__()
        self._changed: tuple[Region, ...] = ()

    def render_partial_update(self) -> ChopsUpdate | None:
        self._changed = tuple(self._dirty_regions)
        try:
            return super().render_partial_update()
        finally:
            self._changed = ()

    def rows(self, rows: Region) -> list[Strip]:
        """Some of the lines of the screen, as they are now; fewer where it is smaller."""
        rows = rows.intersection(self.size.region)
        self._changed = (rows,)
        try:
            chops = self._render_chops(rows, rows.line_range.__contains__)
        finally:
            self._changed = ()
        return [Strip.join(chops[y].values()) for y in rows.line_range]

    def _get_renders(self, crop: Region | None = None) -> Iterable[tuple[Region, Region, list[Strip]]]:
        if crop is None or not self._changed:
            yield from super()._get_renders(crop)
            return
        rows = Region(0, crop.y, self.size.width, crop.height)
        for widget, (region, clip) in self.visible_widgets.items():
            shown = region.intersection(clip).intersection(rows)
            if any(map(shown.overlaps, self._changed)):
                yield region, shown, widget.render_lines(shown.translate(-region.offset))


class FittedScreen(Screen[Result]):
    """As it is now: its size, and what is on it."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._compositor: _ChangedParts = _ChangedParts()
        self._is_being_fitted = False

    def on_screen_suspend(self) -> None:
        notices.withdraw(self)

    def show_downloads(self) -> None:
        """Draw what is shown of downloads, also below a window; called when their figures have been read."""

    def _screen_resized(self, size: Size) -> None:
        if size == self.app.size != self._compositor.size:
            super()._screen_resized(size)

    def _refresh_layout(self, size: Size | None = None, scroll: bool = False) -> None:
        """Where all is to be drawn again, that is done with the layout and not once more after it."""
        if self._repaint_required and self.is_current:
            self._repaint_required = False
            self._dirty_widgets.add(self)
        self._is_being_fitted = size is not None
        try:
            super()._refresh_layout(size, scroll)
        finally:
            self._is_being_fitted = False

    def _compositor_refresh(self) -> None:
        """Draw what has changed. Its widgets are about to be told the size that it was laid out for, and to make of it
        what is to be seen: that is drawn, and not also what was there before. In a batch of updates it would be thrown
        away."""
        if self._is_being_fitted or (self.app._batch_count and self.is_current):
            self._dirty_widgets.add(self)
            self.check_idle()
        elif self is self.app.screen or not self.is_current:
            super()._compositor_refresh()
        else:
            self._show_through()

    def rows(self, rows: Region) -> list[Strip]:
        """Some of its lines as they are now, for a window that lets them be seen."""
        return self._compositor.rows(rows)

    def _show_through(self) -> None:
        """Let the windows that lie over it draw what has changed of it."""
        changed, stack = tuple(self._compositor._dirty_regions), self.app.screen_stack
        self._compositor._dirty_regions.clear()
        self._dirty_widgets.clear()
        for above in stack[stack.index(self) + 1 :] if changed else ():
            if isinstance(above, FittedScreen):
                above.below_has_changed(changed)

    def below_has_changed(self, regions: tuple[Region, ...]) -> None:
        """Draw again what is seen there of the screen below, if this is a window."""

    def get_widget_and_offset_at(self, x: int, y: int) -> tuple[Widget | None, Offset | None]:
        """What is drawn there; nothing for what was removed since, whose parent Textual would look for."""
        widget, offset = super().get_widget_and_offset_at(x, y)
        return (widget, offset) if widget is not None and widget.parent is not None else (None, None)
