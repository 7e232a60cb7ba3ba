"""Choosing the tag whose chats are listed."""

from __future__ import annotations

from collections.abc import Mapping

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input

from squish.chats.tags import as_kept
from squish.text import clean
from squish.tui.windows.chooser import Chooser

_COUNT = 5  # cells


class TagPicker(Chooser[str | None]):
    """Returns the tag, an empty text for all chats, or None. tags: how many chats have each."""

    def __init__(self, tags: Mapping[str, int], current: str) -> None:
        super().__init__()
        self._tags, self._current = dict(tags), current
        self._shown: list[str] = []

    def compose(self) -> ComposeResult:
        yield from self.window("tags", "List only", "list", "", "Tag")

    def on_mount(self) -> None:
        self._look()

    @on(Input.Changed)
    def _look(self) -> None:
        word = as_kept(self.query_one(Input).value.strip())
        self._shown = [*([] if word else [""]), *(tag for tag in self._tags if word in tag)]
        marked = self._shown.index(self._current) if self._current in self._shown else 0
        self.fill([self._row(tag) for tag in self._shown], marked, f"No chat is tagged “{clean(word)}”.")

    def _row(self, tag: str) -> Content:
        if not tag:
            return Content("all chats")
        width = max(len(each) for each in self._tags) + 1
        return Content.assemble(f"{f'#{tag}':<{width}}", (f"{self._tags[tag]:>{_COUNT}}", "$foreground-muted"))

    def taken(self, at: int) -> None:
        self.dismiss(self._shown[at])
