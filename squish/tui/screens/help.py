"""Keys and slash commands, read from the registry of actions."""

from __future__ import annotations

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from squish.tui import actions

_KEYS = 14


class HelpScreen(ModalScreen[None]):
    """Closes with escape or with the key that opened it. here: the scope whose keys come first."""

    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar = [Binding("escape,f1,q", "dismiss", "Close", id="help.close", priority=True)]

    def __init__(self, here: str) -> None:
        super().__init__()
        self._here = here

    def compose(self) -> ComposeResult:
        accent, title = (self.app.theme_variables.get(name, "") for name in ("text-accent", "text-primary"))
        with VerticalScroll(id="help") as box:
            box.border_title = "Keys and commands"
            box.border_subtitle = "↑↓ scroll · esc close"
            # One widget: two hundred small ones take most of a second.
            yield Static(_table(self._here, accent, title), id="rows")


def _table(here: str, accent: str, title_color: str) -> Table:
    """Two columns: a key or a command, and what it does."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=_KEYS)
    table.add_column()

    def section(title: str) -> None:
        if table.row_count:
            table.add_row("", "")
        table.add_row(Text(title, style=f"bold {title_color}"), "")

    def row(left: str, about: str) -> None:
        table.add_row(Text(left, style=f"bold {accent}"), Text(about))

    for scope, title in sorted(actions.SCOPE_TITLES, key=lambda each: each[0] != here):
        section(title)
        for action in actions.ACTIONS:
            if action.scope == scope and action.keys:
                first, *others = actions.display_keys(action.keys)
                row(first, f"{action.about} (also {', '.join(others)})" if others else action.about)
    section("Slash commands")
    for action in actions.ACTIONS:
        if action.slash:
            row(f"/{action.slash} {action.argument}".rstrip(), action.about)
    return table
