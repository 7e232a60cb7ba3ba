"""Models end at the same time, and none of them later than the limit."""

from __future__ import annotations

import asyncio
import socket
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest

from squish.config.settings import Settings
from squish.ipc import process
from squish.ipc.frames import Loaded
from squish.ipc.process import Worker
from squish.runtime import Runtime
from squish.sessions import manager
from squish.sessions.engine import Engine, Limits

COUNT = 3
DEAF = "trap '' TERM HUP; while :; do sleep 1000; done"


class Deaf(Worker):
    """A worker that does not end when it is asked to. together: it is killed once so many are to end."""

    together: asyncio.Barrier | None = None
    other_end: socket.socket

    @classmethod
    async def begin(cls) -> Deaf:
        child = await asyncio.create_subprocess_exec(
            "sh", "-c", DEAF, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, start_new_session=True
        )
        ours, theirs = socket.socketpair()
        worker = cls(child, *await asyncio.open_connection(sock=ours), 600.0)
        worker.other_end = theirs
        return worker

    async def close(self) -> None:
        try:
            if self.together:
                await self.together.wait()
                self.kill()
            await super().close()
        finally:
            self.other_end.close()


def runtime_with(kind: type[Deaf], workers: list[Deaf], home: Path) -> Runtime:
    runtime = Runtime(Settings(home=home, cache_dir=home))

    async def spawn() -> Worker:
        workers.append(await kind.begin())
        return workers[-1]

    for number in range(COUNT):
        engine = Engine(
            Path(f"model-{number}"), spawn, Limits(1, 1, -1), on_loaded=lambda: None, on_ended=lambda: None,
            on_warning=lambda message: None,
        )  # fmt: skip
        engine.loaded = Loaded(
            context_length=0, weights_bytes=0, backend=""
        )  # else it has nothing to save, and is killed
        engine._ensure_worker()
        runtime.sessions._engines[str(number)] = engine
    return runtime


async def all_run(workers: list[Deaf]) -> None:
    while len(workers) < COUNT:
        await asyncio.sleep(0.005)


async def test_models_end_at_the_same_time(tmp_path: Path) -> None:
    """Each ends only once the others are asked to."""

    class Together(Deaf):
        together = asyncio.Barrier(COUNT)

    workers: list[Deaf] = []
    runtime = runtime_with(Together, workers, tmp_path)
    await all_run(workers)
    await runtime.close()
    assert [each._process.returncode for each in workers] == [-9] * COUNT and not runtime.sessions.status()


async def test_workers_that_do_not_end_are_killed_at_the_limit_and_chats_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_EXIT_GRACE", 1e6)
    monkeypatch.setattr(manager, "ENDING", 0.05)
    workers: list[Deaf] = []
    runtime = runtime_with(Deaf, workers, tmp_path)
    await all_run(workers)
    closed: list[str] = []
    monkeypatch.setattr(runtime.chats, "close", lambda: closed.append("chats"))
    await runtime.close()
    assert closed == ["chats"]
    for each in workers:
        await each.close()  # who gave up waiting has left that undone
    assert [each._process.returncode for each in workers] == [-9] * COUNT
