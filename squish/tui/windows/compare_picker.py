"""Choosing who is to be compared: models, each with the chat's parameters or with a preset, and how it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.content import Content
from textual.widgets import Input, OptionList

from squish.text import clean
from squish.tui.chat.comparison import FEWEST, MOST, Candidate, Lineup
from squish.tui.scheduling import after_message
from squish.tui.short_names import short
from squish.tui.windows.chooser import Chooser

_BLIND = "blind: names are hidden until you choose"
_IN_TURN = "one at a time: comparable speeds"


class ComparePicker(Chooser[Lineup | None]):
    """Returns what was chosen, or None. entry: what is marked at first."""

    BINDINGS: ClassVar = [Binding("tab", "mark", "Mark", id="compare.mark", show=False, priority=True)]

    def __init__(self, candidates: Sequence[Candidate], entry: Lineup, question: str) -> None:
        super().__init__()
        self._candidates, self._question = candidates, question
        self._marked = [each for each in entry.candidates if each in candidates]
        self._options = {_BLIND: entry.blind, _IN_TURN: entry.in_turn}
        self._rows: list[Candidate | str] = []

    def compose(self) -> ComposeResult:
        title = " ".join(clean(self._question).split())
        yield from self.window("compare", f"Compare: {title[:50]}", "compare · tab mark", "", "Filter")

    def on_resize(self) -> None:
        after_message(self, self._fill)

    @on(Input.Changed)
    def _fill(self) -> None:
        words = self.query_one(Input).value.lower().split()
        found = [each for each in self._candidates if all(word in each.name.lower() for word in words)]
        self._rows = [*self._options, *found]
        at = self.query_one(OptionList).highlighted
        at = len(self._options) if at is None else at
        self.fill([self._row(each) for each in self._rows], min(at, len(self._rows) - 1), "")

    def _row(self, row: Candidate | str) -> Content:
        if isinstance(row, str):
            return Content.assemble("[x] " if self._options[row] else "[ ] ", (row, "$foreground-muted"))
        sign = f"[{self._marked.index(row) + 1}] " if row in self._marked else "[ ] "
        about = row.preset or "this chat's parameters"
        return Content.assemble(sign, (short(row.model), "bold"), (f"  {clean(about)}", "$foreground-muted"))

    def taken(self, at: int) -> None:
        """By a click; enter compares."""
        self._mark(at)

    def action_mark(self) -> None:
        """Mark the row, or take its mark away."""
        at = self.query_one(OptionList).highlighted
        if at is not None:
            self._mark(at)

    def _mark(self, at: int) -> None:
        row = self._rows[at]
        if isinstance(row, str):
            self._options[row] = not self._options[row]
        elif row in self._marked:
            self._marked.remove(row)
        elif len(self._marked) < MOST:
            self._marked.append(row)
        else:
            self.app.notify(f"{MOST} are marked already; tab unmarks one.", markup=False)
        self._fill()

    def action_take(self) -> None:
        """Compare those that are marked."""
        if len(self._marked) < FEWEST:
            self.app.notify("Mark two or three with tab.", markup=False)
        else:
            self.dismiss(Lineup(tuple(self._marked), self._options[_BLIND], self._options[_IN_TURN]))
