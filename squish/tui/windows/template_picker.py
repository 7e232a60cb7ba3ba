"""Choosing a prompt template."""

from __future__ import annotations

from collections.abc import Mapping

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input

from squish.text import clean
from squish.tui.windows.chooser import Chooser

_WIDE = 200  # cells of a text; the list cuts the rest


class TemplatePicker(Chooser[str | None]):
    """Returns the name of a template, or None. prompts: their texts by name."""

    def __init__(self, prompts: Mapping[str, str]) -> None:
        super().__init__()
        self._prompts = dict(prompts)
        self._shown: list[str] = []

    def compose(self) -> ComposeResult:
        yield from self.window("templates", "Prompt templates", "use", "", "Name or words")

    def on_mount(self) -> None:
        self._look()

    @on(Input.Changed)
    def _look(self) -> None:
        word = self.query_one(Input).value.strip().lower()
        self._shown = [name for name, text in self._prompts.items() if word in name.lower() or word in text.lower()]
        self.fill([self._row(name) for name in self._shown], 0, f"No template contains “{clean(word)}”.")

    def _row(self, name: str) -> Content:
        text = " ".join(clean(self._prompts[name]).split())[:_WIDE]
        width = max(len(each) for each in self._prompts)
        return Content.assemble((f"{clean(name):<{width}}", "bold"), (f"  {text}", "$foreground-muted"))

    def taken(self, at: int) -> None:
        self.dismiss(self._shown[at])
