"""Where notices are shown: where they cover neither the field that one writes in, nor the message of the chat.

The latest one comes first, because where not all have room the last are cut.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import Input, TextArea
from textual.widgets._toast import ToastRack

from squish.tui.scheduling import after_refresh

_EDGE = 1  # line at the top that says what is on


def withdraw(screen: Screen[Any]) -> None:
    """Take them off a screen that another one lies over, which shows them in its own place."""
    for rack in screen.query_children(ToastRack):
        rack.display = False


def keep_clear(screen: Screen[Any]) -> None:
    """Order the notices of a screen, and put them there when it has been laid out."""
    try:
        rack = screen.get_child_by_type(ToastRack)
    except NoMatches:
        return
    came = {rack._toast_id(each): at for at, each in enumerate(screen.app._notifications)}
    rack.sort_children(key=lambda toast: came.get(toast.id or "", -1), reverse=True)
    after_refresh(screen, _put, screen, rack)


def _put(screen: Screen[Any], rack: ToastRack) -> None:
    top, bottom = _room(screen)
    at_top, styles = top == _EDGE, rack.styles
    styles.dock = "top" if at_top else "bottom"
    styles.margin = (top, 0, 0, 0) if at_top else (0, 0, screen.size.height - bottom, 0)
    styles.max_height = max(bottom - top, 1)


def _room(screen: Screen[Any]) -> tuple[int, int]:
    """The most lines next to each other in which nobody writes: the first, and the one behind the last."""
    fields = [each for each in (screen.focused, *screen.query(TextArea)) if isinstance(each, Input | TextArea)]
    written = sorted({(each.region.y, each.region.bottom) for each in fields if each.region})
    edges = [(0, _EDGE), *written, (screen.size.height, screen.size.height)]
    return max(((above[1], below[0]) for above, below in pairwise(edges)), key=lambda room: room[1] - room[0])
