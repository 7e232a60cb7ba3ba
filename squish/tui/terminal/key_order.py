"""Keys take effect in the order in which they were pressed: one that may move the focus is through before the next.

Textual hands a key to the widget with the focus, from which it climbs to the app, where its binding is looked up. A
letter that arrives while it climbs would go to the widget that still has the focus. And a key with priority is looked
up at once: it would overtake the letters before it, and what a window makes of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any
from unicodedata import category

from textual.app import App
from textual.events import Key, Paste
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.widget import Widget

AT_ONCE = frozenset({"app.quit", "chat.stop", "chat.interrupt", "compare.stop"})
"""Actions that wait for nothing the second time: a screen that is busy keeps nobody from stopping what makes it so."""

_TEXT = ("Zs", "Cf")
"""Of characters that Textual takes for no text: the spaces of Chinese, Japanese and French, and what joins or separates
letters in Persian and Hindi, or the people of an emoji."""


class KeyOrder:
    """Holds back what is typed or pasted behind a key that is on its way. dispatch: gives an event to Textual."""

    def __init__(self, app: App[Any], dispatch: Callable[[Key | Paste], Awaitable[None]]) -> None:
        self._app, self._dispatch = app, dispatch
        self._on_its_way = False
        self._held: deque[Key | Paste] = deque()
        self._written_to: Widget | Screen[Any] | None = None

    async def take(self, event: Key | Paste) -> None:
        """Dispatch an event now, or when those before it are through."""
        if (
            isinstance(event, Key)
            and event.character
            and category(event.character[0]) in _TEXT
            and event.key != "space"
        ):
            event = Paste(event.character)
        if isinstance(event, Key) and self._is_held(event.key) and self._stops(event.key):
            await self._dispatch(event)
            return
        self._held.append(event)
        if not self._on_its_way:
            await self._go_on()

    def _is_held(self, key: str) -> bool:
        return any(isinstance(each, Key) and each.key == key for each in self._held)

    def _stops(self, key: str) -> bool:
        return any(
            each.priority and each.id in AT_ONCE
            for _, bindings in self._app.screen._binding_chain
            for each in bindings.key_to_bindings.get(key, ())
        )

    async def _go_on(self) -> None:
        self._on_its_way = False
        if self._app._exit:
            self._held.clear()  # nobody sees any more what they would do
        while self._held and not self._on_its_way:
            event, target = self._held[0], self._app.focused or self._app.screen
            moves = isinstance(event, Key) and not target.check_consume_key(event.key, event.character)
            if isinstance(event, Key) and moves and (written_to := self._written_to):
                self._written_to = None
                if not self._stops(event.key):
                    self._on_its_way = True
                    await self._climb([written_to, *self._path(written_to)])
                    return
            self._held.popleft()
            self._on_its_way = moves
            self._written_to = None if moves else target
            await self._dispatch(event)
            if self._on_its_way:
                # A key with priority was acted on already, though the widget may have put that off until its queue
                # has been worked through.
                await self._climb(self._path(target) if event.is_forwarded else [target, self._app])

    def _path(self, target: Widget | Screen[Any]) -> list[MessagePump]:
        return [*(each for each in target.ancestors_with_self if each is not self._app), self._app]

    async def _climb(self, path: list[MessagePump]) -> None:
        """Follow the key through the queues of the widgets on its way; one that has closed is passed over."""
        while path:
            if path.pop(0).call_later(self._climb, path):
                return
        await self._go_on()
