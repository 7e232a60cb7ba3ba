"""Messages between `squish serve --hosts` and an agent, over whatever carries bytes: ssh, or a TCP connection.

A message is its length, a msgpack body and, over TCP, 16 bytes that show that whoever wrote it knows the token, and
that none was left out, repeated or changed. ssh needs none of that. Over TCP nothing is encrypted.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from squish.cluster.messages import FromAgent, ToAgent

MAGIC = b"squish agent 1\n"
_LENGTH = struct.Struct(">I")
_COUNT = struct.Struct(">Q")
_MOST = 16 << 20  # bytes of a message; a manifest of ten thousand files needs two
_MAC = 16
_LAST_WORD = 1.0  # seconds
_NOISE = 1 << 16  # bytes that a login shell may print before the program begins

Sent = TypeVar("Sent", FromAgent, ToAgent)
Got = TypeVar("Got", FromAgent, ToAgent)


class BadMessage(ConnectionError):
    """Bytes that the other side of a channel cannot have meant."""


@dataclass(frozen=True, slots=True)
class ChannelKeys:
    """What proves messages, one key for each way; None where the connection itself is trusted."""

    ours: bytes | None = None
    theirs: bytes | None = None


class Channel(Generic[Sent, Got]):
    """One end. got: the union of messages that come in. Errors are ConnectionErrors."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        got: type[Got],
        keys: ChannelKeys | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.msgpack.Decoder[Got] = msgspec.msgpack.Decoder(got)
        self._keys = keys or ChannelKeys()
        self._sent = self._got = 0

    async def send(self, message: Sent) -> None:
        """Returns when there is room for more. Messages of several tasks do not mix: each is written at once."""
        body = msgspec.msgpack.encode(message)
        if len(body) > _MOST:
            raise BadMessage(f"a message of {len(body)} bytes is too large")
        self._writer.write(_LENGTH.pack(len(body)) + body + _proof(self._keys.ours, self._sent, body))
        self._sent += 1
        await self._writer.drain()

    async def receive(self) -> Got:
        """The next message. Raises ConnectionError when the other side has gone, or says what cannot be right."""
        try:
            length: int = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))[0]
            if length > _MOST:
                raise BadMessage(f"a message of {length} bytes is announced")
            body = await self._reader.readexactly(length)
            proof = await self._reader.readexactly(_MAC if self._keys.theirs else 0)
        except asyncio.IncompleteReadError:
            raise ConnectionResetError("the connection has ended") from None
        if not hmac.compare_digest(proof, _proof(self._keys.theirs, self._got, body)):
            raise BadMessage("a message is not from whom it seems to be")
        self._got += 1
        try:
            message: Got = self._decoder.decode(body)
            return message
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadMessage(f"a message cannot be read: {error}") from None

    async def close(self) -> None:
        await closed(self._writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close the writing end of a connection; what the other side does not take within a moment is dropped."""
    writer.close()
    try:
        async with asyncio.timeout(_LAST_WORD):
            await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()
    except OSError:  # it is closed, though not as it should be
        pass
    except asyncio.CancelledError:
        writer.transport.abort()
        raise


async def find_magic(reader: asyncio.StreamReader) -> bool:
    """Read until the line that an agent begins with; whether it came. What a login shell prints first is skipped."""
    seen = 0
    while seen < _NOISE:
        try:
            line = await reader.readline()
        except ValueError:  # longer than the reader's buffer
            return False
        if line.endswith(MAGIC):
            return True
        if not line:
            return False
        seen += len(line)
    return False


def _proof(key: bytes | None, number: int, body: bytes) -> bytes:
    return b"" if key is None else hmac.new(key, _COUNT.pack(number) + body, hashlib.sha256).digest()[:_MAC]
