"""What a process of ours has started, a compiler for instance, ends with it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from squish.ipc.local_ranks import LocalMember
from squish.ipc.process import Worker

LEAVES_ONE = "sleep 1000 >&- 2>&- & echo $!; exec >&-; wait"


async def parent() -> tuple[Process, psutil.Process]:
    """A process in a session of its own, and one that it has started."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", LEAVES_ONE, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    assert process.stdout is not None
    return process, psutil.Process(int(await process.stdout.readline()))


async def ended(child: psutil.Process) -> None:
    """Ended, whether or not anybody has asked yet how."""
    with suppress(psutil.NoSuchProcess):
        while child.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("killed", [True, False])
async def test_of_a_rank(killed: bool) -> None:
    process, child = await parent()
    member = LocalMember(process)
    if killed:
        os.kill(process.pid, signal.SIGKILL)
        await member.ended()
    else:
        await member.close()
    await ended(child)
    await member.close()


@pytest.mark.parametrize("turns", range(12))
async def test_of_a_worker_that_nobody_waits_for_any_more(turns: int, tmp_path: Path) -> None:
    """However far its start has come."""
    ourselves = psutil.Process()
    children = {each.pid for each in ourselves.children()}
    descriptors = ourselves.num_fds()
    starting = asyncio.create_task(Worker.spawn(tmp_path))
    for _ in range(turns):
        await asyncio.sleep(0)
    starting.cancel()
    try:
        worker = await starting
        worker.kill()
        await worker.close()
    except asyncio.CancelledError:
        pass
    for each in ourselves.children():
        if each.pid not in children:
            await ended(each)
    while ourselves.num_fds() > descriptors:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("killed", [True, False])
async def test_of_a_worker(killed: bool) -> None:
    process, child = await parent()
    ours, theirs = socket.socketpair()
    worker = Worker(process, *await asyncio.open_connection(sock=ours), 60.0)
    theirs.close()
    if killed:
        os.kill(process.pid, signal.SIGKILL)
    else:
        worker.kill()
    await worker.close()
    await ended(child)
    await worker.close()
