"""Keys and slash commands, read from the registry of actions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Grid, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from squish.tui import actions


class HelpScreen(ModalScreen[None]):
    """Closes with escape or with the key that opened it. here: the scope whose keys come first."""

    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar = [Binding("escape,f1,q", "dismiss", "Close", id="help.close", priority=True)]

    def __init__(self, here: str) -> None:
        super().__init__()
        self._here = here

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help") as box:
            box.border_title = "Keys and commands"
            box.border_subtitle = "↑↓ scroll · esc close"
            with Grid(id="rows"):
                yield from _rows(self._here)


def _rows(here: str) -> Iterator[Static]:
    """Cells of a grid with two columns; a title takes both."""
    for scope, title in sorted(actions.SCOPE_TITLES, key=lambda each: each[0] != here):
        yield Static(title, classes="title")
        for action in actions.ACTIONS:
            if action.scope == scope and action.keys:
                first, *others = actions.display_keys(action.keys)
                about = f"{action.about} (also {', '.join(others)})" if others else action.about
                yield from _row(first, about)
    yield Static("Slash commands", classes="title")
    for action in actions.ACTIONS:
        if action.slash:
            yield from _row(f"/{action.slash} {action.argument}".rstrip(), action.about)


def _row(left: str, about: str) -> Iterator[Static]:
    yield Static(left, classes="keys", markup=False)
    yield Static(about, markup=False)
