"""Finding words in all chats: write, choose a place, and the chat opens there."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from squish.chats import Chats, Hit
from squish.errors import SquishError
from squish.text import clean


class FindScreen(ModalScreen[Hit | None]):
    """Returns the place that was chosen, or None."""

    CSS_PATH = "find.tcss"
    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar = [
        Binding("escape", "dismiss", "Close", id="find.close"),
        Binding("up", "move(-1)", "Previous", id="find.previous", show=False, priority=True),
        Binding("down", "move(1)", "Next", id="find.next", show=False, priority=True),
        Binding("enter", "take", "Open", id="find.take", show=False, priority=True),
    ]

    def __init__(self, chats: Chats, words: str = "") -> None:
        super().__init__()
        self._chats, self._words = chats, words
        self._hits: list[Hit] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="find") as box:
            box.border_title = "Find in all chats"
            box.border_subtitle = "↑↓ move · enter open · esc close"
            yield Input(self._words, placeholder="Words", compact=True)
            yield OptionList(markup=False, compact=True)
            yield Static(id="nothing", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = self.app.animation_level != "none"
        self._look()

    @on(Input.Changed)
    def _look(self) -> None:
        # Exclusive: an older search that is still under way must not overwrite a newer one.
        self.run_worker(self._find(self.query_one(Input).value), exclusive=True, exit_on_error=False)

    async def _find(self, words: str) -> None:
        nothing = "Write the words to look for." if not words.strip() else f"No message has “{clean(words.strip())}”."
        try:
            hits = await asyncio.to_thread(self._chats.find, words)
        except SquishError as error:
            hits, nothing = [], clean(error.message)
        self._hits = hits
        options = self.query_one(OptionList)
        options.set_options([Option(row(hit, max(options.content_size.width - 2, 24))) for hit in hits])
        if hits:
            options.highlighted = 0
        options.display = bool(hits)
        empty = self.query_one("#nothing", Static)
        empty.display = not hits
        empty.update(nothing)

    def action_move(self, rows: int) -> None:
        options = self.query_one(OptionList)
        if rows > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()

    def action_take(self) -> None:
        self.query_one(OptionList).action_select()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._hits[event.option_index])


def row(hit: Hit, width: int) -> Content:
    """The chat, who said it and when; below it the place, with the words marked."""
    day = datetime.fromtimestamp(hit.created).astimezone().strftime("%Y-%m-%d")
    right = f"  {'you' if hit.role == 'user' else 'model'}  {day}"
    title = Content(clean(hit.title)).truncate(max(width - len(right), 8), ellipsis=True, pad=True)
    pieces: list[Content | str | tuple[str, str]] = [title.stylize("bold"), (right, "$foreground-muted"), "\n  "]
    for at, part in enumerate(re.split("[\x02\x03]", hit.snippet)):
        text = " ".join(clean(part).split(" ")).replace("\n", " ")
        pieces.append((text, "bold $accent") if at % 2 else text)
    return Content.assemble(*pieces)
