"""The row of keys at the bottom: as many as have room, whole words only. F1 shows the rest.

One widget: Textual's own footer makes one of every key, and recreates them whenever another part gets the focus.
"""

from __future__ import annotations

import msgspec
from textual.content import Content
from textual.events import Click
from textual.screen import Screen
from textual.widgets import Static

from squish.tui.widgets.shown_text import show_text

_LAST_TO_GO = "help"
_SPACES = 3  # around the key and its word


class _Key(msgspec.Struct):
    key: str
    shown: str
    word: str
    action: str

    @property
    def width(self) -> int:
        return Content(f"{self.shown}{self.word}").cell_length + _SPACES


class Keys(Static):
    """What works now. When it is narrow, the keys on the right go first, but the help stays. A click is the key."""

    DEFAULT_CSS = """
    Keys {
        dock: bottom;
        height: 1;
        padding: 0 1;
        background: $footer-background;
        text-wrap: nowrap;
    }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._keys_shown: list[_Key] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def on_resize(self) -> None:
        self._show()

    def _changed(self, screen: Screen[object]) -> None:
        if self.is_attached and screen is self.screen:
            self._show()

    def _show(self) -> None:
        # Nothing changes below a window that is open: what works there would be judged by the window.
        if not self.is_attached or self.screen is not self.app.screen:
            return
        keys, room = self._keys(), self.content_size.width
        while room and sum(each.width for each in keys) > room and len(keys) > 1:
            keys.remove(next(each for each in reversed(keys) if each.action != _LAST_TO_GO))
        self._keys_shown = keys
        show_text(self, Content("").join(_content(each) for each in keys), layout=False)

    def on_click(self, event: Click) -> None:
        """The key that is under the pointer."""
        at = event.x - self.styles.padding.left
        for each in self._keys_shown:
            if 0 <= at < each.width:
                self.app.simulate_key(each.key)
            at -= each.width

    def _keys(self) -> list[_Key]:
        """The keys that have a word, the first of each action; two ways of one thing are one: `[ ] versions`."""
        found: dict[str, _Key] = {}
        for _, binding, enabled, _ in self.screen.active_bindings.values():
            if binding.show and enabled and binding.action not in found:
                shown = self.app.get_key_display(binding)
                found[binding.action] = _Key(binding.key, shown, binding.description, binding.action)
        keys = list[_Key]()
        for each in found.values():
            if keys and keys[-1].word == each.word:
                keys[-1].shown += f" {each.shown}"
            else:
                keys.append(each)
        return keys


def _content(key: _Key) -> Content:
    return Content.assemble(
        (f" {key.shown}", "bold $footer-key-foreground"), (f" {key.word} ", "$footer-description-foreground")
    )
