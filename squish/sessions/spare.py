"""A worker that has not loaded anything: its imports are behind it when a model is asked for."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from squish.errors import EngineError
from squish.ipc.process import Worker


class SpareWorker:
    """At most one. cache_dir: as of Worker.spawn. Belongs to one event loop."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._starting: asyncio.Task[Worker] | None = None
        self._keep = False

    def __bool__(self) -> bool:
        return self._starting is not None

    async def start(self) -> None:
        """Start it for a model that is about to be asked for. Whether it could be is seen when it is needed."""
        if self._starting is None:
            self._starting = asyncio.create_task(Worker.spawn(self._cache_dir), name="first worker")
            await asyncio.wait([self._starting])

    def keep(self, wanted: bool) -> None:
        """From now on there is one, also after it was taken; or no other is started."""
        self._keep = wanted
        self.refill()

    def refill(self) -> None:
        """Start another, where one is to be kept."""
        if self._keep and self._starting is None:
            self._starting = asyncio.create_task(Worker.spawn(self._cache_dir), name="spare worker")

    async def take(self) -> Worker:
        """The spare if it lives, else a new one. Raises EngineError where none can be started."""
        if starting := self._taken():
            with suppress(EngineError):
                worker = await starting
                if not worker.ended:
                    return worker
        return await Worker.spawn(self._cache_dir)

    async def close(self) -> None:
        """End it, where there is one."""
        if starting := self._taken():
            with suppress(EngineError):  # one that could not even be started
                worker = await starting
                worker.kill()  # it has nothing to lose, and need not finish its imports first
                await worker.close()

    def _taken(self) -> asyncio.Task[Worker] | None:
        starting, self._starting = self._starting, None
        return starting
