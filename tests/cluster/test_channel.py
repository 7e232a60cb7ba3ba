"""Tokens and messages: who does not know the token gets nowhere, and nothing can be put in, left out or changed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from squish.cluster import handshake
from squish.cluster.channel import MAGIC, BadMessage, Channel, ChannelKeys, find_magic
from squish.cluster.connection import opened
from squish.cluster.handshake import WrongToken, new_token, require_token
from squish.cluster.hosts import GroupHost
from squish.cluster.messages import Beat, Beaten, Farewell, FromAgent, ToAgent
from squish.errors import ConfigError
from tests.cluster.test_remarks import HERE

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
KEYS = ChannelKeys(b"a" * 32, b"b" * 32)
REVERSED = ChannelKeys(KEYS.theirs, KEYS.ours)


@asynccontextmanager
async def streams() -> AsyncIterator[tuple[Streams, Streams]]:
    ends = [await asyncio.open_connection(sock=each) for each in socket.socketpair()]
    yield ends[0], ends[1]
    for _, writer in ends:
        writer.close()


async def shake(token: str, other: str) -> tuple[ChannelKeys | BaseException, ChannelKeys | BaseException]:
    async with streams() as (front, agent):

        async def closing(role, end: Streams, known: str) -> ChannelKeys:  # type: ignore[no-untyped-def]
            try:
                return await role(*end, known)
            except WrongToken:
                end[1].close()
                raise

        both = closing(handshake.as_front, front, token), closing(handshake.as_agent, agent, other)
        return await asyncio.gather(*both, return_exceptions=True)


async def test_a_host_that_nobody_waits_for_any_more_is_let_go() -> None:
    """Before its first word, and before its first answer."""
    ended: list[str] = []

    async def end() -> str:
        ended.append("ended")
        return ""

    host = GroupHost("air", "127.0.0.2")
    for said in ((), (msgspec.structs.replace(HERE, rank=1),)):
        async with streams() as (front, agent):
            theirs: Channel[FromAgent, ToAgent] = Channel(*agent, ToAgent)  # type: ignore[arg-type]
            for each in said:
                await theirs.send(each)
            channel: Channel[ToAgent, FromAgent] = Channel(*front, FromAgent)  # type: ignore[arg-type]
            opening = asyncio.create_task(opened(host, 1, channel, end))
            if said:
                assert isinstance(await theirs.receive(), Beat)
            else:
                await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            with pytest.raises(ConnectionError):
                while isinstance(await theirs.receive(), Beat | Farewell):
                    pass
    assert ended == ["ended"] * 2


@pytest.mark.parametrize("turns", range(8))
async def test_a_host_is_let_go_though_nobody_waits_for_that(turns: int) -> None:
    ended: list[str] = []

    async def end() -> str:
        ended.append("ended")
        return ""

    async with streams() as (front, agent):
        theirs: Channel[FromAgent, ToAgent] = Channel(*agent, ToAgent)  # type: ignore[arg-type]
        await theirs.send(msgspec.structs.replace(HERE, rank=1))
        channel: Channel[ToAgent, FromAgent] = Channel(*front, FromAgent)  # type: ignore[arg-type]
        opening = asyncio.create_task(opened(GroupHost("air", "127.0.0.2"), 1, channel, end))
        beat = await theirs.receive()
        assert isinstance(beat, Beat)
        await theirs.send(Beaten(beat.number, 0.0))
        connection = await opening
        closing = asyncio.create_task(connection.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        await connection.close()
    assert ended == ["ended"]


async def test_who_knows_the_token_comes_in_and_both_have_the_same_keys() -> None:
    front, agent = await shake("x" * 20, "x" * 20)
    assert isinstance(front, ChannelKeys) and isinstance(agent, ChannelKeys)
    assert (front.ours, front.theirs) == (agent.theirs, agent.ours)
    assert front.ours != front.theirs
    again, _ = await shake("x" * 20, "x" * 20)
    assert again != front


async def test_who_does_not_is_refused_on_both_sides() -> None:
    front, agent = await shake("x" * 20, "y" * 20)
    assert isinstance(front, WrongToken) and isinstance(agent, WrongToken)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 9, b"squish join 1\n" + b"0" * 32])
async def test_strangers_are_refused(said: bytes) -> None:
    async with streams() as (front, (_, stranger)):
        stranger.write(said)
        stranger.write_eof()
        with pytest.raises(WrongToken):
            await handshake.as_front(*front, "x" * 20)


def test_tokens_are_long_enough_and_can_be_typed() -> None:
    tokens = {new_token() for _ in range(50)}
    assert len(tokens) == 50
    assert all(require_token(f" {token}\n") == token and token.isascii() for token in tokens)
    with pytest.raises(ConfigError, match="at least 16 characters"):
        require_token("secret")


async def written(*messages: int) -> list[bytes]:
    """What a channel with keys writes, message by message."""
    found = []
    async with streams() as ((other, _), (reader, writer)):
        channel: Channel[ToAgent, FromAgent] = Channel(reader, writer, FromAgent, KEYS)  # type: ignore[arg-type]
        for number in messages:
            await channel.send(Beat(number))
            found.append(await other.read(1000))
    return found


async def received(*data: bytes) -> list[object]:
    """What a channel makes of bytes, until it has enough of them."""
    async with streams() as ((_, writer), (reader, unused)):
        channel: Channel[FromAgent, ToAgent] = Channel(reader, unused, ToAgent, REVERSED)  # type: ignore[arg-type]
        writer.writelines(data)
        writer.write_eof()
        found: list[object] = []
        try:
            while True:
                found.append(await channel.receive())
        except ConnectionError as error:
            return [*found, type(error)]


async def test_messages_arrive_in_their_order() -> None:
    assert await received(*await written(1, 2, 3)) == [Beat(1), Beat(2), Beat(3), ConnectionResetError]


async def test_a_message_can_be_neither_repeated_left_out_nor_changed() -> None:
    one, two, three = await written(1, 2, 3)
    assert await received(one, one) == [Beat(1), BadMessage]
    assert await received(one, three) == [Beat(1), BadMessage]
    assert await received(two, one) == [BadMessage]
    for place in range(4, len(one)):
        changed = one[:place] + bytes([one[place] ^ 1]) + one[place + 1 :]
        assert await received(changed, two) == [BadMessage]


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\x01\xc1", b"\0\0\0\x02\x81\xa4", b"\0\0\0\0"])
async def test_what_is_not_a_message_ends_the_connection(data: bytes) -> None:
    async with streams() as ((_, writer), (reader, unused)):
        channel: Channel[FromAgent, ToAgent] = Channel(reader, unused, ToAgent)  # type: ignore[arg-type]
        writer.write(data)
        writer.write_eof()
        with pytest.raises(ConnectionError):
            await channel.receive()


async def test_without_keys_a_channel_carries_both_ways() -> None:
    async with streams() as (front, agent):
        one: Channel[ToAgent, FromAgent] = Channel(*front, FromAgent)  # type: ignore[arg-type]
        two: Channel[FromAgent, ToAgent] = Channel(*agent, ToAgent)  # type: ignore[arg-type]
        await one.send(Beat(1))
        assert await two.receive() == Beat(1)
        await two.send(Beaten(1, 2.0))
        assert await one.receive() == Beaten(1, 2.0)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (MAGIC, True),
        (b"Welcome!\nLast login: never\n" + MAGIC, True),
        (b"no newline" + MAGIC, True),
        (b"bash: squish: command not found\n", False),
        (b"", False),
        (b"x" * 200_000, False),
        (b"x\n" * 100_000 + MAGIC, False),
    ],
)
async def test_what_a_login_shell_says_first_is_skipped(said: bytes, found: bool) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(said)
    reader.feed_eof()
    assert await find_magic(reader) is found
