"""A server is known on its machine for as long as it runs."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from squish.system.servers import Announcement


@pytest.mark.parametrize("turns", range(6))
async def test_who_asks_as_it_ends_is_answered_or_sent_away(tmp_path: Path, turns: int) -> None:
    async with Announcement(tmp_path, list):
        (path,) = (tmp_path / "run").iterdir()
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        client.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
    with client, suppress(ConnectionResetError):
        while await asyncio.get_running_loop().sock_recv(client, 65536):
            pass
    assert not path.exists()


async def test_one_that_cannot_say_what_is_loaded_keeps_nobody_waiting(tmp_path: Path) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    async with Announcement(tmp_path, lambda: [object()]):
        (path,) = (tmp_path / "run").iterdir()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
    assert told
