"""Finding words in all chats: write, choose a place, and the chat opens there."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from functools import partial
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input

from squish.chats.chats import Chats
from squish.chats.messages import Hit
from squish.errors import SquishError
from squish.text import clean
from squish.tui.widgets.markdown.plain_text import plain_text
from squish.tui.windows.chooser import Chooser


class ChatSearchScreen(Chooser[Hit | None]):
    """Returns the place that was chosen, or None."""

    CSS_PATH = "chat_search.tcss"

    def __init__(self, chats: Chats, words: str = "") -> None:
        super().__init__()
        self._chats, self._words = chats, words
        self._hits: list[Hit] = []

    def compose(self) -> ComposeResult:
        yield from self.window("find", "Find in all chats", "open", self._words, "Words, and #tag for chats with a tag")

    def on_mount(self) -> None:
        self._look()

    @on(Input.Changed)
    def _look(self) -> None:
        # Exclusive: an older search that is still under way must not overwrite a newer one.
        # A callable, because a coroutine that is replaced before it starts would complain that nobody awaited it.
        search: Any = partial(self._find, self.query_one(Input).value)
        self.run_worker(search, exclusive=True, exit_on_error=False)

    async def _find(self, words: str) -> None:
        if words.strip() and not self._hits:
            self.fill([], 0, "Searching …")
        nothing = f"Nothing found for “{clean(words.strip())}”." if words.strip() else "Type the words to look for."
        try:
            hits = await asyncio.to_thread(self._chats.find, words)
        except SquishError as error:
            hits, nothing = [], clean(error.message)
        self._hits = hits
        width = max(self.query_one(Input).size.width - 2, 24)  # the list has no width of its own before its first row
        self.fill([row(hit, width) for hit in hits], 0, nothing)

    def taken(self, at: int) -> None:
        self.dismiss(self._hits[at])


def row(hit: Hit, width: int) -> Content:
    """The chat, who said it and when; below it the place, with the words marked."""
    day = datetime.fromtimestamp(hit.created).astimezone().strftime("%Y-%m-%d")
    right = f"{'  archived' if hit.archived else ''}  {'you' if hit.role == 'user' else 'model'}  {day}"
    title = Content(clean(hit.title)).truncate(max(width - len(right), 8), ellipsis=True, pad=True)
    pieces: list[Content | str | tuple[str, str]] = [title.stylize("bold"), (right, "$foreground-muted"), "\n  "]
    snippet = hit.snippet if hit.role == "user" else plain_text(hit.snippet)  # as the chat shows it
    for at, part in enumerate(re.split("[\x02\x03]", snippet)):
        text = " ".join(clean(part).split(" ")).replace("\n", " ")
        pieces.append((text, "bold $text-accent") if at % 2 else text)
    return Content.assemble(*pieces)
