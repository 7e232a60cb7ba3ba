"""Ranks that are started by hand: over a real connection, with a token, from an address of hosts.toml."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from squish.cluster import handshake
from squish.cluster.agent import Agent
from squish.cluster.channel import Channel
from squish.cluster.group import ConnectedHosts
from squish.cluster.hosts import GroupHost, HostGroup
from squish.cluster.joining import JoinListener, join, rejoin, split
from squish.cluster.messages import FromAgent, Look, ModelThere, ToAgent
from squish.errors import ConfigError, EngineError, InvalidInput
from squish.system.ports import stop_listening
from tests.cluster.pairs import no_pull, settings_of
from tests.ports import own_port

TOKEN = "correct-horse-battery"


def hosts_with(*others: GroupHost, port: int) -> HostGroup:
    return HostGroup((GroupHost("here", "127.0.0.1"), *others), join_port=port)


AIR = GroupHost("air", "127.0.0.2")


@asynccontextmanager
async def agent(channel: Channel[FromAgent, ToAgent], rank: int, home: Path) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(Agent(channel, rank, settings_of(home), no_pull).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_rank_joins_with_the_token(tmp_path: Path) -> None:
    port = own_port()
    async with JoinListener(hosts_with(AIR, port=port), TOKEN, list[str]().append) as listener:
        assert listener.command(1) == f"squish worker --join 127.0.0.1:{port} --rank 1"
        waiting = asyncio.create_task(listener.joined(1))
        channel = await join(f"127.0.0.1:{port}", 1, TOKEN)
        async with agent(channel, 1, tmp_path) as running:
            connection = await waiting
            assert connection.rank == 1 and connection.facts.versions["Squish"]
            assert await connection.ask(Look("tiny:1b", ()), ModelThere) == ModelThere("absent")
            await connection.close()
            await running


async def test_a_rank_that_was_lost_can_come_back(tmp_path: Path) -> None:
    port = own_port()
    async with JoinListener(hosts_with(AIR, port=port), TOKEN, list[str]().append) as listener:
        async with agent(await join(f"127.0.0.1:{port}", 1, TOKEN), 1, tmp_path):
            first = await listener.joined(1)
        await first.heard.wait()
        while not first.lost:
            await asyncio.sleep(0)
        async with agent(await join(f"127.0.0.1:{port}", 1, TOKEN), 1, tmp_path):
            assert await listener.joined(1) is not first


async def test_a_wrong_token_is_refused_and_said_on_both_sides() -> None:
    port, said = own_port(), list[str]()
    async with JoinListener(hosts_with(AIR, port=port), TOKEN, said.append):
        with pytest.raises(EngineError, match="does not let this rank in") as raised:
            await join(f"127.0.0.1:{port}", 1, "another-token-of-it")
        assert raised.value.hint and "token" in raised.value.hint
        while not said:
            await asyncio.sleep(0)
    assert "was refused" in said[0] and "another-token" not in said[0] and TOKEN not in said[0]


@pytest.mark.parametrize(
    ("others", "rank", "said"),
    [
        ((AIR,), 2, "rank 2 is not one that is started by hand"),
        ((GroupHost("mini", "127.0.0.2", ssh="mini"), AIR), 1, "rank 1 is not one that is started by hand"),
    ],
)
async def test_only_ranks_that_are_waited_for_come_in(others: tuple[GroupHost, ...], rank: int, said: str) -> None:
    port, heard = own_port(), list[str]()
    async with JoinListener(hosts_with(*others, port=port), TOKEN, heard.append):
        with pytest.raises(EngineError, match=said):
            await join(f"127.0.0.1:{port}", rank, TOKEN)
        while not heard:
            await asyncio.sleep(0)
    assert said in heard[0]


async def test_a_rank_joins_once(tmp_path: Path) -> None:
    port, heard = own_port(), list[str]()
    async with JoinListener(hosts_with(AIR, port=port), TOKEN, heard.append) as listener:
        async with agent(await join(f"127.0.0.1:{port}", 1, TOKEN), 1, tmp_path):
            first = await listener.joined(1)
            with pytest.raises(EngineError, match="rank 1 is there already"):
                await join(f"127.0.0.1:{port}", 1, TOKEN)
            assert await listener.joined(1) is first and not first.lost


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has only one address on loopback")
async def test_an_address_that_is_not_in_the_file_is_refused() -> None:
    """Here every connection comes from 127.0.0.1, which these hosts do not have."""
    port, said = own_port(), list[str]()
    hosts = HostGroup((GroupHost("here", "127.0.0.3"), AIR), join_port=port)
    async with JoinListener(hosts, TOKEN, said.append):
        with pytest.raises(EngineError):
            await join(f"127.0.0.3:{port}", 1, TOKEN)
    assert "127.0.0.1 is not an address in hosts.toml" in said[0]


@pytest.mark.parametrize("turns", range(6))
async def test_who_is_coming_in_as_the_server_ends_is_let_go(turns: int) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    port = own_port()
    async with JoinListener(hosts_with(AIR, port=port), TOKEN, list[str]().append):
        client = socket.create_connection(("127.0.0.1", port))
        client.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
    with client, suppress(ConnectionResetError):
        assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
    await asyncio.sleep(0)
    assert told == []


async def test_a_rank_that_has_not_said_what_it_is_as_the_server_ends_is_let_go() -> None:
    port = own_port()
    async with JoinListener(hosts_with(AIR, port=port), TOKEN, list[str]().append):
        channel = await join(f"127.0.0.1:{port}", 1, TOKEN)
    with pytest.raises(ConnectionError):
        await channel.receive()
    await channel.close()


async def test_who_gives_up_joining_leaves_no_connection() -> None:
    left = asyncio.get_running_loop().create_future()
    came = asyncio.Event()

    async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handshake.as_front(reader, writer, TOKEN)
        came.set()
        try:
            await reader.read()
            left.set_result(None)
        except ConnectionResetError:
            left.set_result(None)
        finally:
            writer.close()

    listening = await asyncio.start_server(front, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    joining = asyncio.create_task(join(f"127.0.0.1:{port}", 1, TOKEN))
    await came.wait()
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    await left
    await stop_listening(listening)


async def test_nobody_waits_there() -> None:
    with pytest.raises(EngineError, match="cannot be reached") as raised:
        await join(f"127.0.0.1:{own_port()}", 1, TOKEN)
    assert raised.value.hint and "squish serve --hosts" in raised.value.hint


async def test_an_address_of_another_machine_cannot_be_listened_at() -> None:
    hosts = HostGroup((GroupHost("here", "192.0.2.1"), AIR), join_port=own_port())
    with pytest.raises(ConfigError, match=r"Nothing can listen at 192\.0\.2\.1"):
        async with JoinListener(hosts, TOKEN, list[str]().append):
            pass


def test_addresses_to_join() -> None:
    assert split("10.0.0.1") == ("10.0.0.1", 11441)
    assert split(" mini.local:9000 ") == ("mini.local", 9000)
    for wrong in ("", ":80", "a:b", "a:0", "a:99999", "fe80::1", "a:"):
        with pytest.raises(InvalidInput):
            split(wrong)


class Waits:
    """Instead of the clock: what was waited, without waiting."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.before: list[Callable[[], Awaitable[object]]] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if self.before:
            await self.before.pop(0)()
        await asyncio.sleep(0)


async def test_a_lost_rank_comes_back_by_itself_when_the_server_is_there_again(tmp_path: Path) -> None:
    port, waits = own_port(), Waits()
    hosts = hosts_with(AIR, port=port)
    listener = JoinListener(hosts, TOKEN, list[str]().append)

    async def nothing() -> None: ...

    waits.before = [nothing] * 1100 + [listener.__aenter__]
    channel = await rejoin(f"127.0.0.1:{port}", 1, TOKEN, waits)
    try:
        async with agent(channel, 1, tmp_path):
            assert (await listener.joined(1)).rank == 1
    finally:
        await listener.__aexit__(None, None, None)
    assert waits.seconds == [1, 2, 4, 8, 16] + [30] * 1096


async def test_a_server_with_another_token_is_not_tried_for_good() -> None:
    port, said = own_port(), list[str]()
    async with JoinListener(hosts_with(AIR, port=port), TOKEN, said.append):
        with pytest.raises(EngineError, match="does not let this rank in again") as raised:
            await rejoin(f"127.0.0.1:{port}", 1, "another-token-of-it", Waits())
        while not said:
            await asyncio.sleep(0)
    assert raised.value.hint and "SQUISH_JOIN_TOKEN" in raised.value.hint


async def test_a_rank_that_the_server_still_believes_in_tries_until_it_does_not(tmp_path: Path) -> None:
    port, waits, said = own_port(), Waits(), list[str]()
    async with JoinListener(hosts_with(AIR, port=port), TOKEN, said.append) as listener:
        async with agent(await join(f"127.0.0.1:{port}", 1, TOKEN), 1, tmp_path):
            first = await listener.joined(1)

            async def nothing() -> None: ...

            async def lose() -> None:
                await first.close()

            waits.before = [nothing, lose]
            channel = await rejoin(f"127.0.0.1:{port}", 1, TOKEN, waits)
        async with agent(channel, 1, tmp_path):
            assert await listener.joined(1) is not first
        while len(said) < len(waits.seconds) - 1:
            await asyncio.sleep(0)
    assert "rank 1 is there already" in said[0]


async def test_a_server_that_ends_says_so(tmp_path: Path) -> None:
    """Then nobody tries to come back."""
    port = own_port()
    async with JoinListener(hosts_with(AIR, port=port), TOKEN, list[str]().append) as listener:
        async with agent(await join(f"127.0.0.1:{port}", 1, TOKEN), 1, tmp_path) as running:
            await (await listener.joined(1)).close()
            await running


async def test_who_needs_a_rank_that_does_not_come_back_gets_an_error(tmp_path: Path) -> None:
    hosts, said = hosts_with(AIR, port=own_port()), list[str]()
    async with ConnectedHosts(hosts, settings_of(tmp_path), said.append, TOKEN) as connected:
        with pytest.raises(EngineError, match=r"air was lost, and has not come back within 0 s\.") as raised:
            await connected.connect(within=0.0)
    assert raised.value.hint and f"squish worker --join 127.0.0.1:{hosts.join_port} --rank 1" in raised.value.hint
