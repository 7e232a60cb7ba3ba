"""Typing or pasting beside the prompt: unless a key is a command of what has the focus, it goes to the prompt."""

from __future__ import annotations

from textual.events import Key, Paste
from textual.widget import Widget

from squish.tui.messages import Typed


class TypedElsewhere(Widget):
    """Posts Typed. It stands behind the widget that it is for: Textual takes the styles of the first base alone."""

    def is_command(self, key: str) -> bool:
        """Whether a letter is to be looked for among the bindings; it comes here before that."""
        return False

    def on_key(self, event: Key) -> None:
        if event.is_printable and event.character and not self.is_command(event.key):
            event.stop()
            self.post_message(Typed(event.character))

    def on_paste(self, event: Paste) -> None:
        event.stop()
        self.post_message(Typed(event.text))
