"""Ranks that all run on this machine: to try a group, and to use several processors of it."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from contextlib import ExitStack

from squish.errors import EngineError
from squish.ipc.environment import environment
from squish.ipc.group import Rank, command, new_token
from squish.ipc.last_lines import LastLines
from squish.ipc.remains import end_all, wait_then_insist

_LOOPBACK = "127.0.0.1"
_EXIT_GRACE = 2.0
_PORTS = range(20_000, 32_768)  # Linux gives connections those from 32,768 on, macOS and Windows from 49,152


class LocalRanks:
    """size: ranks of a group."""

    def __init__(self, size: int) -> None:
        self.size = self.here = size

    async def plan(self, model: str, cache_dir: str) -> tuple[Rank, ...]:
        """Ports that are free now. Where another program takes one meanwhile, the group fails and is built anew."""
        control, *addresses = (f"{_LOOPBACK}:{port}" for port in _free_ports(self.size + 1))
        token = new_token()
        return tuple(Rank(number, tuple(addresses), control, token, model, cache_dir) for number in range(self.size))

    async def start(self, rank: Rank) -> LocalMember:
        started = command(rank)
        try:
            process = await asyncio.create_subprocess_exec(
                *started.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=environment() | started.environment,
                start_new_session=True,  # Ctrl-C in the terminal is the front process's to handle
            )
        except OSError as error:
            raise EngineError(f"Rank {rank.rank} of the group could not be started: {error.strerror}.") from error
        assert process.stdin is not None
        process.stdin.write(started.stdin)
        return LocalMember(process)


class LocalMember:
    """A process of this machine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._cleared = False
        self._stderr = LastLines(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> str:
        await self._process.wait()
        self._clear()
        await self._stderr.rest()
        return str(self._stderr)

    async def close(self) -> None:
        """Ask by closing its standard input, then insist: a stopped process does not listen. As of Worker."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await wait_then_insist(self._process, self._stderr, self._clear, _EXIT_GRACE)

    def _clear(self) -> None:
        """End it, and what it has started, once: later another process may have its number."""
        if not self._cleared:
            self._cleared = True
            end_all(self.pid)


def _free_ports(count: int) -> list[int]:
    """Below those that systems give to connections, so that hardly anybody takes one before its rank listens there."""
    found: list[socket.socket] = []
    with ExitStack() as stack:
        while len(found) < count:
            try:
                found.append(stack.enter_context(socket.create_server((_LOOPBACK, secrets.choice(_PORTS)))))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        return [each.getsockname()[1] for each in found]
