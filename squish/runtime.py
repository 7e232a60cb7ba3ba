"""Composition root: builds the store, the session manager and the chats from Settings, and closes them in order."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from squish.chats.chats import Chats
from squish.config.settings import Settings
from squish.models.store import Store
from squish.sessions.manager import SessionManager


class Runtime:
    """What every front door works on. `async with Runtime(settings) as runtime:`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.cache_dir)
        self.sessions = SessionManager(self.store, settings)
        self.chats = Chats(settings.home / "chats.db")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End what runs."""
        await self.sessions.close()
        self.chats.close()
