"""Owns the groups of ranks that hold models between them: whether there are any, and how soon a lost one is rebuilt."""

from __future__ import annotations

import asyncio
from pathlib import Path

from squish.ipc.group import Ranks
from squish.ipc.group_worker import GroupWorker
from squish.ipc.process import Worker
from squish.sessions.backoff import Backoff


class RankGroups:
    """ranks: where they run, and how they are started. Belongs to one event loop."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._backoffs: dict[str, Backoff] = {}

    async def wait(self, model: str) -> None:
        """Until the group of a model may be started, where the last ones were lost soon after each other."""
        await asyncio.sleep(self._backoff(model).wait(_now()))

    async def around(self, worker: Worker, model: str, path: Path, cache_dir: Path) -> GroupWorker:
        """A group whose rank 0 is this worker. Raises SquishError; then the worker has ended too."""
        backoff = self._backoff(model)
        group = await GroupWorker.gather(worker, self._ranks, path, cache_dir, lambda: backoff.ended(_now()))
        backoff.started(_now())
        return group

    def _backoff(self, model: str) -> Backoff:
        return self._backoffs.setdefault(model, Backoff())


def _now() -> float:
    return asyncio.get_running_loop().time()
