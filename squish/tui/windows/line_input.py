"""One line of text from the user."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input

from squish.tui.windows.window import Window


class LineScreen(Window[str | None]):
    """Returns the line, or None. title and value are clean already. may_be_empty: an empty line is an answer too."""

    CSS_PATH = "line_input.tcss"
    BINDINGS: ClassVar = [
        Binding("escape", "dismiss", "Close", id="line.close", priority=True),
        Binding("ctrl+c", "interrupt", "Close", id="line.interrupt", show=False, priority=True),
    ]

    def __init__(self, title: str, value: str, *, may_be_empty: bool = False) -> None:
        super().__init__()
        self._title, self._value, self._may_be_empty = title, value, may_be_empty

    @property
    def about(self) -> tuple[object, ...]:
        return (*super().about, self._title)

    def compose(self) -> ComposeResult:
        with Vertical(id="line") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = "enter save · esc close"
            yield Input(self._value, compact=True)

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Input))  # now, because a letter may come right behind the key that opened this

    def action_interrupt(self) -> None:
        """The value that is there at first is selected by nobody."""
        field = self.query_one(Input)
        if field.selected_text and field.value != self._value:
            field.action_copy()
        else:
            super().action_interrupt()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        line = event.value.strip()
        self.dismiss(line if line or self._may_be_empty else None)
