"""Ranks that are started by hand: `squish serve --hosts` waits for them, and `squish worker --join` comes to it.

Only the addresses of hosts.toml are let in, and only with the token.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from squish.cluster import handshake
from squish.cluster.channel import Channel, closed
from squish.cluster.connection import HostConnection, opened
from squish.cluster.handshake import EndedEarly, WrongToken
from squish.cluster.hosts import JOIN_PORT, HostGroup
from squish.cluster.messages import FromAgent, ToAgent
from squish.errors import ConfigError, EngineError, InvalidInput, SquishError
from squish.system.ports import stop_listening
from squish.text import clean, whole

_HANDSHAKE = 10.0  # seconds
_LONGEST_WAIT = 30.0  # seconds between attempts to come back
_RANK = 4  # bytes in which who joins says which rank it is
_WELCOME, _NOT_BY_HAND, _TAKEN = b"\0", b"\1", b"\2"  # what it is answered


class JoinListener:
    """Waits for the ranks of hosts.toml that have no ssh: `async with JoinListener(hosts, token, warn) as listener:`.

    warn: gets a sentence for each one that was refused.
    """

    def __init__(self, hosts: HostGroup, token: str, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._hosts = hosts
        self._token = token
        self._server: asyncio.Server | None = None
        self._joined: dict[int, HostConnection] = {}
        self._coming: set[int] = set()
        self._changed = asyncio.Event()
        self._busy: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        address, port = self._hosts.hosts[0].address, self._hosts.join_port
        try:
            self._server = await asyncio.start_server(self._on_connection, address, port)
        except OSError as error:
            raise ConfigError(
                f"Nothing can listen at {address}:{port}: {error.strerror or error}.",
                hint="The first host's address must be one of this machine; join_port in hosts.toml sets the port.",
                param="--hosts",
            ) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            await stop_listening(self._server)
        for task in self._busy:
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)
        for connection in self._joined.values():
            await connection.close()

    async def joined(self, rank: int) -> HostConnection:
        """The connection of a rank, once somebody has started it."""
        while True:
            self._changed.clear()
            connection = self._joined.get(rank)
            if connection is not None and not connection.lost:
                return connection
            await self._changed.wait()

    def command(self, rank: int) -> str:
        """What somebody has to type on the machine of a rank."""
        port = "" if self._hosts.join_port == JOIN_PORT else f":{self._hosts.join_port}"
        return f"squish worker --join {self._hosts.hosts[0].address}{port} --rank {rank}"

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        try:
            await self._let_in(reader, writer)
        except (WrongToken, TimeoutError) as error:
            self._warn(f"A rank that tried to join was refused: {str(error) or 'it said nothing'}.")
            await closed(writer)
        except (ConnectionError, SquishError) as error:
            self._warn(f"A rank that tried to join is gone: {error}")
            await closed(writer)
        except asyncio.CancelledError:  # raised again, Python 3.11 would log it
            writer.transport.abort()
        finally:
            self._busy.discard(task)

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")[0]
        async with asyncio.timeout(_HANDSHAKE):
            if peer not in {host.address for host in self._hosts.hosts}:
                raise WrongToken(f"{peer} is not an address in hosts.toml")
            keys = await handshake.as_front(reader, writer, self._token)
            rank = int.from_bytes(await reader.readexactly(_RANK))
        before = self._joined.get(rank)
        if rank not in self._hosts.by_hand:
            answer = _NOT_BY_HAND
        else:
            answer = _WELCOME if rank not in self._coming and (before is None or before.lost) else _TAKEN
        writer.write(answer)
        if answer != _WELCOME:
            raise WrongToken(_refusal(answer, rank))

        async def end() -> str:
            return ""

        channel: Channel[ToAgent, FromAgent] = Channel(reader, writer, FromAgent, keys)  # type: ignore[arg-type]
        self._coming.add(rank)
        try:
            self._joined[rank] = await opened(self._hosts.hosts[rank], rank, channel, end)
        finally:
            self._coming.discard(rank)
        self._changed.set()


async def join(address: str, rank: int, token: str) -> Channel[FromAgent, ToAgent]:
    """Connect to a `squish serve --hosts` that waits. address: with or without a port. Raises EngineError."""
    try:
        return await _enter(address, rank, token)
    except WrongToken as error:
        hint = "Take the token that `squish serve --hosts` shows now, and the address that hosts.toml gives this rank."
        raise EngineError(f"{address} does not let this rank in: {error}.", hint=hint) from None
    except (TimeoutError, asyncio.IncompleteReadError):
        hint = "Is `squish serve --hosts` waiting there?"
        raise EngineError(f"{_shown(address)} does not answer.", hint=hint) from None
    except OSError as error:
        hint = "Is `squish serve --hosts` waiting there, and is this the address of the first host?"
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        raise EngineError(f"{_shown(address)} cannot be reached: {why}.", hint=hint) from None
    except _NotWanted as error:
        hint = "`squish serve --hosts` shows which rank it waits for."
        raise EngineError(f"{address} does not let this rank in: {error}.", hint=hint) from None


async def rejoin(
    address: str, rank: int, token: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> Channel[FromAgent, ToAgent]:
    """Connect again after the connection was lost, with longer and longer waits between attempts.

    Raises EngineError where the server has another token by now, or none for this rank.
    """
    wait = 1.0
    while True:
        await sleep(wait)
        wait = min(_LONGEST_WAIT, 2 * wait)
        try:
            return await _enter(address, rank, token)
        except (EndedEarly, TimeoutError, asyncio.IncompleteReadError):
            continue
        except WrongToken as error:
            raise EngineError(
                f"{address} does not let this rank in again: {error}.",
                hint="That server has been restarted: take the token that it shows now, or set SQUISH_JOIN_TOKEN "
                "on both machines.",
            ) from None
        except _NotWanted as error:
            if not error.passes:
                raise EngineError(f"{address} does not let this rank in again: {error}.") from None
        except OSError:
            continue


class _NotWanted(Exception):
    """The server does not take this rank. passes: it may later, when it has noticed that the rank was lost."""

    def __init__(self, answer: bytes, rank: int) -> None:
        super().__init__(_refusal(answer, rank))
        self.passes = answer == _TAKEN


async def _enter(address: str, rank: int, token: str) -> Channel[FromAgent, ToAgent]:
    """One attempt. Raises WrongToken, _NotWanted, TimeoutError, IncompleteReadError, OSError."""
    host, port = split(address)
    async with asyncio.timeout(_HANDSHAKE):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            keys = await handshake.as_agent(reader, writer, token)
            writer.write(rank.to_bytes(_RANK))
            answer = await reader.readexactly(len(_WELCOME))
        except BaseException:
            await closed(writer)
            raise
    if answer != _WELCOME:
        await closed(writer)
        raise _NotWanted(answer, rank)
    return Channel(reader, writer, ToAgent, keys)  # type: ignore[arg-type]


def _shown(address: str) -> str:
    """With the port, which is what was tried."""
    host, port = split(address)
    return f"{host}:{port}"


def _refusal(answer: bytes, rank: int) -> str:
    return f"rank {rank} is there already" if answer == _TAKEN else f"rank {rank} is not one that is started by hand"


def split(address: str) -> tuple[str, int]:
    """Host and port of `10.0.0.1` or `10.0.0.1:11441`. Raises InvalidInput."""
    host, colon, text = address.strip().rpartition(":")
    port = whole(text) if colon else JOIN_PORT
    host = host if colon else address.strip()
    if not host or ":" in host or port is None or not 0 < port < 65536:
        example = "Write the address of the first host: 10.0.0.1, or 10.0.0.1:11441."
        raise InvalidInput(f"{clean(address)[:80]!r} is not an address to join.", hint=example, param="--join")
    return host, port
