"""Keys and slash commands, read from the registry of actions."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from squish.tui import actions
from squish.tui.scheduling import after_refresh
from squish.tui.windows.window import Window

_KEYS = 16
_LEAST = 20
_WIDTH, _SHARE = 76, 0.92  # of the window, as its style sheet says
_AROUND = 7  # border, padding, scroll bar


class HelpScreen(Window[None]):
    """Closes with escape or with the key that opened it. here: the scope whose keys come first."""

    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar = [Binding("escape,f1,q", "dismiss", "Close", id="help.close", priority=True)]

    def __init__(self, here: str) -> None:
        super().__init__()
        self._here, self._room = here, 0

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help") as box:
            box.border_title = "Keys and commands"
            box.border_subtitle = "↑↓ scroll · esc close"
            # One widget: two hundred small ones take most of a second.
            self._room = self._widest()
            yield Static(self._rows(), id="rows", markup=False)

    def on_resize(self) -> None:
        if (room := self._widest()) != self._room:
            self._room = room
            after_refresh(self, self.query_one("#rows", Static).update, self._rows())

    def _widest(self) -> int:
        """Cells of a line, before the window is laid out."""
        return min(_WIDTH, int(self.app.size.width * _SHARE)) - _AROUND

    def _rows(self) -> Content:
        """Broken here once: Textual would break them at each layout, a third of what the window took to open."""
        room = max(self._room, 1)
        lines = (each.wrap(room) if each.cell_length > room else [each] for each in _lines(self._here, self._room))
        return Content("\n").join([piece for line in lines for piece in line])


def _lines(here: str, width: int) -> Iterator[Content]:
    """Two columns: a key or a command, and what it does, in lines of so many cells."""
    for at, (title, rows) in enumerate(_sections(here)):
        if at:
            yield Content("")
        yield Content.styled(title, "bold $text-primary")
        for left, about in rows:
            first, *more = wrap(about, max(width - _KEYS, _LEAST))
            yield Content.assemble((f"{left:<{_KEYS - 1}} ", "bold $text-accent"), first)
            yield from (Content(f"{'':<{_KEYS}}{each}") for each in more)


def _sections(here: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for scope, title in sorted(actions.SCOPE_TITLES, key=lambda each: each[0] != here):
        rows = list[tuple[str, str]]()
        for action in actions.ACTIONS:
            if action.scope == scope and action.keys:
                first, *others = actions.display_keys(action.keys)
                rows.append((first, f"{action.about} (also {', '.join(others)})" if others else action.about))
        yield title, rows
    yield (
        "Slash commands",
        [(f"/{each.slash} {each.argument}".rstrip(), each.about) for each in actions.ACTIONS if each.slash],
    )
