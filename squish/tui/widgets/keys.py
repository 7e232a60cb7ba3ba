"""The row of keys at the bottom: as many as have room, whole words only. F1 shows the rest."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

from squish.tui.scheduling import after_refresh

_LAST_TO_GO = "help"
_SPACES = 3  # around the key and its word


class Keys(Footer):
    """What works now. When it is narrow, the keys on the right go first, but the help stays."""

    def __init__(self) -> None:
        super().__init__(show_command_palette=False)

    def compose(self) -> ComposeResult:
        shown = list[FooterKey]()
        for each in (key for key in super().compose() if isinstance(key, FooterKey)):
            if shown and shown[-1].description == each.description:  # two ways of one thing: `[ ] versions`
                shown[-1].key_display += f" {each.key_display}"
            else:
                shown.append(each)
        room = self.content_size.width
        while room and sum(map(_width, shown)) > room and len(shown) > 1:
            shown.remove(next(each for each in reversed(shown) if each.action != _LAST_TO_GO))
        yield from shown

    async def recompose(self) -> None:
        """Nothing below a window that is open: what works there would be judged by the window."""
        if self.is_attached and self.screen is self.app.screen:
            await super().recompose()

    def on_resize(self) -> None:
        after_refresh(self, self.recompose)


def _width(key: FooterKey) -> int:
    return Content(f"{key.key_display}{key.description}").cell_length + _SPACES
