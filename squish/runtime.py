"""Composition root: builds the store, the session manager and the chats from Settings, and closes them in order."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self

from squish.chats.chats import Chats
from squish.config.settings import Settings
from squish.mcp.lazy_toolbox import LazyToolbox
from squish.models.store import Store
from squish.sessions.backend import Offers
from squish.sessions.manager import SessionManager
from squish.system.accelerator import has_gpu

if TYPE_CHECKING:
    from squish.ipc.group import Ranks
    from squish.mcp.toolbox import Toolbox


class Runtime:
    """What every front door works on. `async with Runtime(settings) as runtime:`.

    ranks: where the ranks run that hold each chat model between them; None where one process holds it.
    """

    def __init__(self, settings: Settings, ranks: Ranks | None = None) -> None:
        self.settings = settings
        self.store = Store(settings.cache_dir)
        self.sessions = SessionManager(self.store, settings, ranks=ranks)
        self.chats = Chats(settings.home / "chats.db")
        self.offers = Offers(no_kv_bits="not on a GPU" if has_gpu() else "")
        self._tools = LazyToolbox(settings)

    @property
    def toolbox(self) -> Toolbox:
        return self._tools.get()

    async def calls_tools(self, model: str) -> bool:
        """Whether a model was trained to call tools. Raises ModelNotFound."""
        from squish.format import abilities

        return (await asyncio.to_thread(abilities.read, self.store.find(model).path)).tools

    async def remove(self, model: str) -> int:
        """Delete a model from the disk; the bytes freed. Raises StoreError, ModelInUse."""
        await self.sessions.unload(model)
        return await asyncio.to_thread(self.store.remove, model)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End what runs, all at the same time. Chats are stored in any case."""
        try:
            await asyncio.gather(self._tools.close(), self.sessions.close())
        finally:
            self.chats.close()
