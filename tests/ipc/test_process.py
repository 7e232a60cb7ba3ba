"""Who is taken for dead: a worker that is silent, and none that could not be heard."""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio.subprocess import PIPE

import pytest

from squish.ipc import frames
from squish.ipc.process import SILENCE, Worker


async def test_a_program_that_was_itself_stopped_for_long_takes_no_worker_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, said = asyncio.get_running_loop(), frames.JobProgress("packing", 0.5)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=PIPE, stderr=PIPE)
    ours, theirs = socket.socketpair()
    with theirs:
        worker = Worker(process, *await asyncio.open_connection(sock=ours), SILENCE)
        receiving, clock = asyncio.create_task(worker.receive()), loop.time
        try:
            for _ in range(5):  # until it waits
                await asyncio.sleep(0)
            theirs.sendall(frames.encode(frames.Alive()) + frames.encode(said))
            monkeypatch.setattr(loop, "time", lambda: clock() + 1000)  # as after ctrl+z and fg
            assert await receiving == said and not worker.ended
        finally:
            monkeypatch.undo()
            worker.kill()
            await worker.close()
