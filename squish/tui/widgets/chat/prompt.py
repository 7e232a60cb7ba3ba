"""Where the user writes: enter sends, ctrl+j begins a new line, up and down at the edges walk through what was sent."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import ClassVar

from textual.binding import Binding
from textual.events import Key, Paste
from textual.widgets import TextArea

from squish.attachments import mentions
from squish.system.working_directory import working_directory
from squish.text import clean
from squish.tui import actions
from squish.tui.chat.pasted import Pasted
from squish.tui.messages import ContinueLast, DraftChanged, QuestionSent


class History:
    """What was sent, oldest first, and the draft that was left for it."""

    def __init__(self) -> None:
        self._sent: list[str] = []
        self._at = 0
        self._draft = ""

    def add(self, text: str) -> None:
        if not self._sent or self._sent[-1] != text:
            self._sent.append(text)
        self._at = len(self._sent)

    def older(self, current: str) -> str | None:
        """The text before this one, or None at the oldest."""
        if self._at == 0:
            return None
        if self._at == len(self._sent):
            self._draft = current
        self._at -= 1
        return self._sent[self._at]

    def newer(self) -> str | None:
        """The text after this one, at last the draft, or None when that is what is shown."""
        if self._at == len(self._sent):
            return None
        self._at += 1
        return self._draft if self._at == len(self._sent) else self._sent[self._at]


class PromptInput(TextArea):
    """A text area of one to eight rows that posts QuestionSent and DraftChanged.

    offers: up in an empty one posts ContinueLast; else it brings back what was sent.
    """

    BINDINGS: ClassVar = [
        *actions.bindings("prompt"),
        Binding("up", "older", "Older message", show=False, id="prompt.older"),
        Binding("down", "newer", "Newer message", show=False, id="prompt.newer"),
    ]

    def __init__(self) -> None:
        super().__init__(
            id="prompt", compact=True, highlight_cursor_line=False, placeholder="Ask anything · / for commands"
        )
        self.offers = False
        self._history = History()
        self._pasted = Pasted()
        self._typed: list[str] = []

    def on_text_area_changed(self) -> None:
        self.post_message(DraftChanged())

    def remember(self, sent: Iterable[str]) -> None:
        """Let the history begin with what was sent in earlier runs, the oldest first."""
        for text in sent:
            self._history.add(text)

    @property
    def draft(self) -> str:
        """What is written, with pasted texts in full."""
        return self._pasted.unfold(self.text)

    def put(self, text: str) -> None:
        """Replace the draft, with the cursor at its end; a large one is folded."""
        self._write_typed()
        self.text = self._pasted.fold(clean(text))
        self.move_cursor(self.document.end)

    def give_back(self, text: str) -> None:
        """A message that was not taken becomes the draft again, in front of what was written since."""
        written = self.text
        self.put(text)
        if written:
            self.insert(f"\n\n{written}")

    async def _on_key(self, event: Key) -> None:
        """Letters that come in one burst are written together: each alone would rewrap the whole draft."""
        if event.is_printable and event.character:
            event.stop()
            event.prevent_default()
            if not self._typed:
                self.call_later(self._write_typed)
            self._typed.append(event.character)
        else:
            self._write_typed()

    def _write_typed(self) -> None:
        text = "".join(self._typed)
        self._typed.clear()
        if text:
            self._restart_blink()
            self._replace_via_keyboard(text, *self.selection)

    async def _on_paste(self, event: Paste) -> None:
        event.prevent_default()
        self.take(event.text)

    def take(self, text: str) -> None:
        """Write a text where the cursor is; a large one is folded to a line."""
        self._write_typed()
        start, end = self.selection
        self.replace(self._pasted.fold(clean(text)), start, end, maintain_selection_offset=False)

    # A key with priority overtakes letters that arrived with it in one burst and still wait in this widget's queue, so
    # each of these lines up behind them.

    def action_send(self) -> None:
        self.call_later(self._send)

    def action_newline(self) -> None:
        self.call_later(self._newline)

    def action_complete(self) -> None:
        self.call_later(self._complete)

    def _send(self) -> None:
        self._write_typed()
        typed = self.text.strip("\n")
        if typed.strip():
            text = self._pasted.unfold(typed)
            self._history.add(text)
            self.text = ""
            self.post_message(QuestionSent(text, typed))

    def _newline(self) -> None:
        self._write_typed()
        start, end = self.selection
        self.replace("\n", start, end, maintain_selection_offset=False)

    def _complete(self) -> None:
        self._write_typed()
        found = actions.completions(self.text)
        at_end = self.cursor_location == self.document.end
        if found:
            self.put(f"/{found[0].slash} ")
        elif at_end and (longer := mentions.completions(self.text, working_directory())):
            shared = takewhile(lambda letters: len(set(letters)) == 1, zip(*longer, strict=False))
            common = "".join(letters[0] for letters in shared)
            self.put(common if len(common) > len(self.text) else longer[0])
        else:
            self.screen.focus_next()

    def action_older(self) -> None:
        if self.offers and not self.text:
            self.post_message(ContinueLast())
            return
        top = self.wrapped_document.location_to_offset(self.cursor_location).y == 0
        if top and (text := self._history.older(self.draft)) is not None:
            self.put(text)
        else:
            self.action_cursor_up()

    def action_newer(self) -> None:
        bottom = self.wrapped_document.location_to_offset(self.cursor_location).y == self.wrapped_document.height - 1
        if bottom and (text := self._history.newer()) is not None:
            self.put(text)
        else:
            self.action_cursor_down()
