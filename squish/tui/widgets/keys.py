"""The row of keys at the bottom: as many as have room, whole words only. F1 shows the rest."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

_LAST_TO_GO = "help"
_SPACES = 3  # around the key and its word


class Keys(Footer):
    """What works now. When it is narrow, the keys on the right go first, but the help stays."""

    def __init__(self) -> None:
        super().__init__(show_command_palette=False)

    def compose(self) -> ComposeResult:
        shown = [each for each in super().compose() if isinstance(each, FooterKey)]
        room = self.content_size.width
        while room and sum(map(_width, shown)) > room and len(shown) > 1:
            shown.remove(next(each for each in reversed(shown) if each.action != _LAST_TO_GO))
        yield from shown

    def on_resize(self) -> None:
        self.call_after_refresh(self.recompose)


def _width(key: FooterKey) -> int:
    return Content(f"{key.key_display}{key.description}").cell_length + _SPACES
