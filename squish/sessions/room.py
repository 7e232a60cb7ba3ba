"""Room in memory for a model that is to be loaded: idle ones leave for it, or it is taken from other programs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from squish.memory.reservations import Reservations, Shortage
from squish.models.manifest import Installed
from squish.sessions.engine import Engine
from squish.system.host import HOST

logger = logging.getLogger("squish.sessions")


class Room:
    """engines: the models that may have to go, by name. refuse_short: nothing is taken from other programs unless
    somebody wants that for a model."""

    def __init__(self, reservations: Reservations, engines: Mapping[str, Engine], *, refuse_short: bool) -> None:
        self._reservations = reservations
        self._engines = engines
        self._refuse_short = refuse_short
        self._making = asyncio.Lock()
        self._anyway: set[str] = set()  # models that somebody wants although memory is short

    async def shortage(self, installed: Installed) -> Shortage | None:
        """What to ask a user before a model is loaded; None where there is room, and where that was answered."""
        if installed.manifest.id in self._anyway:
            return None
        if await self._reservations.missing(installed, self._held()) > 0:
            return None  # other models of ours make room first, and may leave enough
        return await self._reservations.shortage(installed)

    def take_anyway(self, id: str) -> None:
        """The answer to that: yes, until the model has ended."""
        self._anyway.add(id)

    async def make_for(self, installed: Installed) -> None:
        """Make room and reserve it, until `Reservations.release`. Raises LoadFailed and MemoryShort."""
        async with self._making:
            self._reservations.release(installed)
            await self._unload_for(installed)
            if short := await self._reservations.shortage(installed):
                self._accept(short)
            await self._reservations.reserve(installed)

    def ended(self, installed: Installed) -> None:
        """The model has left, or did not come."""
        self._anyway.discard(installed.manifest.id)
        self._reservations.release(installed)

    def _accept(self, short: Shortage) -> None:
        """Load a model although memory is short, unless that is refused. Raises MemoryShort."""
        if short.model in self._anyway:
            return
        if self._refuse_short:
            raise short.refusal()
        logger.warning("%s", short)

    async def _unload_for(self, installed: Installed) -> None:
        """Unload idle models, the longest idle first, until this one fits. One with work is never unloaded."""
        while await self._reservations.missing(installed, self._held()) > 0:
            idle = [engine for engine in self._engines.values() if engine.idle_since is not None]
            if not idle:
                raise await self._reservations.refuse(installed, self._held())
            await min(idle, key=lambda engine: engine.idle_since or 0.0).close()

    def _held(self) -> int:
        """Bytes that the processes of loaded models take."""
        pids = [pid for engine in self._engines.values() if engine.loaded for pid in engine.pids]
        return sum(HOST.footprint(pid) or 0 for pid in pids)
