"""Choosing a prompt template or a preset: a name, and behind it what it is."""

from __future__ import annotations

from collections.abc import Mapping

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input

from squish.text import clean
from squish.tui.windows.chooser import Chooser

_WIDE = 200  # cells of a text; the list cuts the rest


class NamedPicker(Chooser[str | None]):
    """Returns a name, or None. kind: what has it, as `template`; known: texts by name; current: the one in use."""

    def __init__(self, kind: str, title: str, known: Mapping[str, str], current: str = "") -> None:
        super().__init__()
        self._kind, self._title, self._known, self._current = kind, title, dict(known), current
        self._shown: list[str] = []

    @property
    def about(self) -> tuple[object, ...]:
        return (*super().about, self._title)

    def compose(self) -> ComposeResult:
        yield from self.window("named", self._title, "use", "", "Name or words")

    def on_mount(self) -> None:
        self._look()

    @on(Input.Changed)
    def _look(self) -> None:
        word = self.query_one(Input).value.strip().lower()
        self._shown = [name for name, text in self._known.items() if word in name.lower() or word in text.lower()]
        marked = self._shown.index(self._current) if self._current in self._shown else 0
        self.fill([self._row(name) for name in self._shown], marked, f"No {self._kind} contains “{clean(word)}”.")

    def _row(self, name: str) -> Content:
        text = " ".join(clean(self._known[name]).split())[:_WIDE]
        width = max(len(clean(each)) for each in self._known)
        return Content.assemble((f"{clean(name):<{width}}", "bold"), (f"  {text}", "$foreground-muted"))

    def taken(self, at: int) -> None:
        self.dismiss(self._shown[at])
