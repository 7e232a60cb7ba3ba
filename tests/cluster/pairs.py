"""Two machines in one process: an agent and a connection to it over a socket pair, each with a home of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from squish.cluster.agent import Agent
from squish.cluster.channel import Channel
from squish.cluster.connection import HostConnection, opened
from squish.cluster.hosts import GroupHost, HostGroup
from squish.cluster.messages import FromAgent, ToAgent, Working
from squish.config.settings import Settings
from squish.models.manifest import Installed, Manifest, StoredFile
from squish.models.store import Store

HERE = GroupHost("here", "127.0.0.1", 11440)
THERE = GroupHost("there", "127.0.0.2", 11440, ssh="elsewhere")
BOTH = HostGroup((HERE, THERE))

Puller = Callable[[str, Callable[[Working], None]], "asyncio.Future[None]"]


def settings_of(home: Path) -> Settings:
    return Settings.from_environment({"HOME": str(home), "SQUISH_OFFLINE": "1"})


def install(home: Path, id: str, files: dict[str, bytes]) -> Installed:
    """A model of these files, which nothing could load."""
    store = Store(settings_of(home).cache_dir)
    with store.staging(id) as staging:
        for name, content in files.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(content)
        return store.commit(staging, manifest(id))


def manifest(id: str, files: tuple[StoredFile, ...] = ()) -> Manifest:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    return Manifest(id, f"hub:org/{id}", None, "llama", "4-bit", 1000, 2048, None, when, files)


async def no_pull(name: str, report: Callable[[Working], None]) -> None:
    raise AssertionError("nothing was to be pulled")


@dataclass
class Pair:
    """connection: as `squish serve` has it. agent: the task that is the other machine. wire: the socket in between."""

    connection: HostConnection
    agent: asyncio.Task[None]
    wire: socket.socket

    def cut(self) -> None:
        """Pull the cable out."""
        self.wire.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def pair(home: Path, host: GroupHost = THERE, pull=no_pull) -> AsyncIterator[Pair]:  # type: ignore[no-untyped-def]
    """home: of the other machine."""
    ours, theirs = socket.socketpair()
    wire = ours.dup()
    agent = asyncio.create_task(_agent(theirs, home, pull))
    reader, writer = await asyncio.open_connection(sock=ours)
    channel: Channel[ToAgent, FromAgent] = Channel(reader, writer, FromAgent)  # type: ignore[arg-type]

    async def end() -> str:
        return ""

    connection = await opened(host, 1, channel, end)
    try:
        yield Pair(connection, agent, wire)
    finally:
        wire.close()
        await connection.close()
        await asyncio.wait({agent})


async def _agent(theirs: socket.socket, home: Path, pull) -> None:  # type: ignore[no-untyped-def]
    reader, writer = await asyncio.open_connection(sock=theirs)
    channel: Channel[FromAgent, ToAgent] = Channel(reader, writer, ToAgent)  # type: ignore[arg-type]
    try:
        await Agent(channel, 1, settings_of(home), pull).run()
    except ConnectionError:
        pass
