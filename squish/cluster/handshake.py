"""The token of ranks that are started by hand, and how two machines show each other that they know it.

Each side answers the other's random challenge with an HMAC of it, `squish serve` first, so that a token is given to
nobody who does not have it. The keys that prove all later messages are made of both challenges.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Literal

from squish.cluster.channel import ChannelKeys
from squish.errors import ConfigError
from squish.ipc.proof import CHALLENGE, PROOF, challenge, holds, proof

TOKEN_VARIABLE = "SQUISH_JOIN_TOKEN"
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that looks like something else
_GROUPS, _GROUP = 5, 5
_SHORTEST = 16
_HELLO = b"squish join 1\n"

Role = Literal["front", "agent"]


class WrongToken(ConnectionError):
    """The other side does not know the token, or is not Squish."""


class EndedEarly(WrongToken):
    """The other side went away before anything was shown."""


def new_token() -> str:
    """A token that can be typed: 25 letters and digits, 123 bits."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))


def require_token(text: str) -> str:
    """A token as it was typed, or set. Raises ConfigError where it is too short to be one."""
    token = text.strip()
    if len(token) < _SHORTEST or not token.isprintable():
        raise ConfigError(
            f"A join token has at least {_SHORTEST} characters.",
            hint="`squish serve --hosts` shows it when it waits for this rank.",
            param=TOKEN_VARIABLE,
        )
    return token


async def as_front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> ChannelKeys:
    """The side that waits. Raises WrongToken, ConnectionError."""
    if await _read(reader, len(_HELLO)) != _HELLO:
        raise WrongToken("it is not Squish")
    theirs = await _read(reader, CHALLENGE)
    ours = challenge()
    writer.write(ours + _answer(token, "front", theirs, ours))
    await writer.drain()
    _require(await _read(reader, PROOF), _answer(token, "agent", theirs, ours))
    return ChannelKeys(_key(token, "front", theirs, ours), _key(token, "agent", theirs, ours))


async def as_agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> ChannelKeys:
    """The side that joins. Raises WrongToken, ConnectionError."""
    ours = challenge()
    writer.write(_HELLO + ours)
    await writer.drain()
    theirs = await _read(reader, CHALLENGE)
    _require(await _read(reader, PROOF), _answer(token, "front", ours, theirs))
    writer.write(_answer(token, "agent", ours, theirs))
    await writer.drain()
    return ChannelKeys(_key(token, "agent", ours, theirs), _key(token, "front", ours, theirs))


def _answer(token: str, role: Role, agent: bytes, front: bytes) -> bytes:
    return proof(token, f"answer {role}", agent, front)


def _key(token: str, role: Role, agent: bytes, front: bytes) -> bytes:
    return proof(token, f"messages {role}", agent, front)


def _require(given: bytes, wanted: bytes) -> None:
    if not holds(given, wanted):
        raise WrongToken("the token is another one")


async def _read(reader: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        raise EndedEarly("the connection ended before it was shown to be Squish") from None
