"""A question with a few answers: what it is about can be read first, and scrolled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from squish.tui.widgets.row_list import RowList
from squish.tui.windows.window import Window


class ChoiceScreen(Window[str | None]):
    """Returns the name of the answer, or None. title and text are clean; choices: names with their labels."""

    CSS_PATH = "choice.tcss"
    AUTO_FOCUS = "OptionList"
    BINDINGS: ClassVar = [
        Binding("escape", "dismiss", "Cancel", id="choice.cancel", priority=True),
        Binding("pagedown", "page(1)", "More", show=False, id="choice.down", priority=True),
        Binding("pageup", "page(-1)", "Back", show=False, id="choice.up", priority=True),
    ]

    def __init__(self, title: str, text: Content, choices: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._title, self._text, self._choices = title, text, choices

    @property
    def about(self) -> tuple[object, ...]:
        return (*super().about, self._title, self._text.plain)

    def compose(self) -> ComposeResult:
        with Vertical(id="choice") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = "↑↓ enter choose · pgdn more · esc cancel"
            with VerticalScroll(can_focus=False):
                yield Static(self._text, markup=False)
            yield RowList(*(Option(label) for _, label in self._choices), markup=False, compact=True)

    def action_page(self, step: int) -> None:
        scroll = self.query_one(VerticalScroll)
        (scroll.scroll_page_down if step > 0 else scroll.scroll_page_up)(animate=False)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._choices[event.option_index][0])
