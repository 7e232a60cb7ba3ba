"""The list of conversations: which are being answered, which have news, which are pinned, which one is shown."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.content import Content
from textual.events import Click
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from squish.chats.tags import written
from squish.text import clean
from squish.tui import actions
from squish.tui.chat.conversations import ChatRow
from squish.tui.messages import OpenChat, Typed
from squish.tui.widgets.chat.typed_elsewhere import TypedElsewhere
from squish.tui.widgets.row_list import RowList

_SIGNS = {
    "running": ("▶ ", "$text-primary"),
    "asks": ("⚙ ", "$text-warning"),
    "news": ("● ", "$text-accent"),
    "failed": ("✕ ", "$text-error"),
    "pinned": ("◆ ", "$text-secondary"),
    "": ("  ", ""),
}


class ChatList(RowList, TypedElsewhere):
    """Pinned chats are first, then the one used last. Posts OpenChat, and Typed for what is meant for the prompt."""

    FOCUS_ON_CLICK = False  # letters are commands here only after its key; a user who clicks and types means the prompt

    BINDINGS = actions.bindings("chats")

    def __init__(self) -> None:
        super().__init__(id="chats", markup=False, compact=True)
        self.border_title = "Chats"
        self._rows: tuple[ChatRow, ...] = ()
        self._current: int | None = None
        self._width = 0
        self._tag = ""
        self._clicked = False  # since it got the focus

    @property
    def marked(self) -> int | None:
        """The chat that keys act on."""
        return self._rows[self.highlighted].id if self.highlighted is not None and self._rows else None

    def on_resize(self) -> None:
        """A list that was hidden has its rows from before it had a width."""
        self.show(self._rows, self._current, self._tag)

    def show(self, rows: Sequence[ChatRow], current: int | None, tag: str = "") -> None:
        """Show these chats; the mark stays on the chat it is on, or where that has gone, on the one in its place.

        tag: the one that all of them have.
        """
        width = max(self.content_size.width, 12)
        if (tuple(rows), current, width, tag) == (self._rows, self._current, self._width, self._tag):
            return
        place = self.highlighted if self.has_focus and self.highlighted is not None else None
        marked = current if place is None else self.marked
        self._rows, self._current, self._width, self._tag = tuple(rows), current, width, tag
        self.set_options([Option(self._line(row, width)) for row in rows])
        live = sum(row.sign in ("running", "asks") for row in rows)
        name = f"Chats {written([tag])}" if tag else "Chats"
        self.border_title = Content(f"{name} ({live} live)" if live else name)
        otherwise = min(place or 0, len(rows) - 1) if rows else None
        self.highlighted = next((at for at, row in enumerate(rows) if row.id == marked), otherwise)

    def _line(self, row: ChatRow, width: int) -> Content:
        """A row, and where tags have no room beside the whole title, one with them below it."""
        sign, style = _SIGNS[row.sign]
        room, title = width - 4 - len(row.day), Content(clean(row.title) or "…")
        tags = Content(clean(written(row.tags))).stylize("$text-secondary")
        beside = Content(" ") + tags if row.tags else Content("")
        if title.cell_length + beside.cell_length > room:
            beside = Content("")
        title = title.truncate(room - beside.cell_length, ellipsis=True, pad=True)
        title = title.stylize("bold") if row.id == self._current else title
        day = (f" {row.day}", "$foreground-muted")
        below = Content("\n  ") + tags.truncate(width - 4, ellipsis=True) if row.tags and not beside else Content("")
        return Content.assemble((sign, style), title, beside, day, below)

    def on_focus(self) -> None:
        self._clicked = False

    def on_click(self, event: Click) -> None:
        self._clicked = True
        if "option" not in event.style.meta:  # which opens a chat
            self.post_message(Typed(""))

    def is_command(self, key: str) -> bool:
        """Not if it was pressed after a click, before that moved the focus."""
        return key in self._bindings.key_to_bindings and not self._clicked

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(OpenChat(self._rows[event.option_index].id))
