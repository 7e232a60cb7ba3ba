"""A process is waited for to its end, whoever else holds its pipes."""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from squish.cluster import ssh
from squish.ipc import last_lines, local_ranks, process
from squish.ipc.local_ranks import LocalMember
from squish.ipc.process import Worker
from squish.system.pipes import let_go
from tests.conftest import PATIENCE

LEAVES_ONE = (
    "import subprocess, sys; print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid, flush=True)"
)
STAYS = f"{LEAVES_ONE}; import time; time.sleep(1000)"


@asynccontextmanager
async def started(program: str) -> AsyncIterator[Process]:
    """A process in a session of its own, whose pipes another one holds as well, which nobody here knows."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    assert child.stdout is not None
    other = psutil.Process(int(await child.stdout.readline()))
    try:
        yield child
        assert child.returncode is not None and other.is_running()
    finally:
        other.kill()


async def test_pipes_that_another_process_holds_keep_nobody_waiting() -> None:
    async with started(STAYS) as child:
        assert child.stdin is not None
        child.stdin.write(bytes(1 << 20))  # more than a pipe takes
        child.kill()
        let_go(child)
        let_go(child)
        await child.wait()
        let_go(child)


async def worker_ends(child: Process) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        await Worker(child, *await asyncio.open_connection(sock=ours), 600.0).close()


ENDINGS: dict[str, Callable[[Process], Coroutine[Any, Any, object]]] = {
    "worker": worker_ends,
    "rank": lambda child: LocalMember(child).close(),
    "ssh": lambda child: ssh._Ending(child).end(),
}


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("program", [LEAVES_ONE, STAYS], ids=["ended", "stays"])
async def test_a_process_that_has_left_another_behind_has_ended(
    kind: str, program: str, cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graces = (process, "_EXIT_GRACE"), (local_ranks, "_EXIT_GRACE"), (ssh, "_GRACE"), (last_lines, "_MOMENT")
    for module, name in graces:
        monkeypatch.setattr(module, name, PATIENCE if cancelled else 0.0)
    async with started(program) as child:
        ending = asyncio.create_task(ENDINGS[kind](child))
        if cancelled:
            for _ in range(5):  # it waits by then
                await asyncio.sleep(0)
            ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        await child.wait()
