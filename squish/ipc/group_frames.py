"""The frames between rank 0 of a group and the others, over TCP, and how they know each other.

Framing is that of frames.py. A connection opens with Challenge, Hello and Accepting: each side proves that it has the
group's token, and the token itself never travels. Then come `ToRank` one way and `FromRank` the other. Nothing
but msgspec Structs is decoded.
"""

from __future__ import annotations

import socket
from typing import Literal, TypeVar

import msgspec

from squish.ipc.frames import HEADER, MAX_FRAME, WireError
from squish.ipc.proof import challenge, holds, proof

PULSE = 0.5
"""Seconds between two signs of life, both ways."""

_STRANGER = 4096  # bytes that a frame may have before the other end is known

Frame = TypeVar("Frame")
Transport = Literal["mesh", "ring", "jaccl"]

# ---- who is there


class Challenge(msgspec.Struct, frozen=True, tag="challenge"):
    nonce: bytes


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """versions: of Squish, MLX and mlx-lm, which must be those of rank 0."""

    rank: int
    nonce: bytes
    proof: bytes
    versions: tuple[str, ...]


class Accepting(msgspec.Struct, frozen=True, tag="accepting"):
    proof: bytes


# ---- rank 0 → the others


class Join(msgspec.Struct, frozen=True, tag="join"):
    """All ranks are there: connect to them, and load. Answered by Joined, then Ready; or by Broken.

    transport: by what ranks compute together, which must be the same for all. kv_bits: as of Load.
    """

    transport: Transport
    cpu_precision: Literal["int8", "float32"]
    wire_weights: bool
    kv_bits: int | None = None


class Fork(msgspec.Struct, frozen=True, tag="fork"):
    """The row `new` begins with the first `length` tokens of the row `old`; with None it begins empty."""

    new: int
    old: int | None
    length: int


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """Nobody needs these rows any more."""

    rows: tuple[int, ...]


class Forward(msgspec.Struct, frozen=True, tag="forward"):
    """Process new tokens of some rows in one pass. number: counts passes from 1.

    For each row: what it is called, how many tokens it holds (it is cut to them first), its new tokens. width: columns
    that the pass has; shorter rows are padded on the right.
    """

    number: int
    rows: tuple[int, ...]
    offsets: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]
    width: int


class Pulse(msgspec.Struct, frozen=True, tag="pulse"):
    """Rank 0 lives."""


Operation = Fork | Drop | Forward
ToRank = Join | Operation | Pulse

# ---- the others → rank 0


class Joined(msgspec.Struct, frozen=True, tag="joined"):
    """The rank is connected to its neighbors, and begins to load."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The rank's part of the model is in memory. cache_budget: bytes that KV caches may take there."""

    weights_bytes: int
    cache_budget: int


class RankProgress(msgspec.Struct, frozen=True, tag="progress"):
    """Sent every PULSE seconds: the last pass that is finished, and how many sums with other ranks are, over all."""

    finished: int
    collectives: int


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """The rank cannot go on; it ends after this."""

    failure: WireError


FromRank = Joined | Ready | RankProgress | Broken

# ---- on a socket


def send(connection: socket.socket, frame: Challenge | Hello | Accepting | ToRank | FromRank) -> None:
    """Write a whole frame. Raises OSError. Not for two threads at once."""
    body = msgspec.msgpack.encode(frame)
    connection.sendall(HEADER.pack(len(body)) + body)


def receive(connection: socket.socket, kind: type[Frame], largest: int = MAX_FRAME) -> Frame | None:
    """The next frame; None where the other end has closed. Raises OSError, msgspec.MsgspecError, ValueError."""
    header = _read(connection, HEADER.size)
    if header is None:
        return None
    [length] = HEADER.unpack(header)
    if length > largest:
        raise ValueError(f"a frame of {length} bytes is announced")
    body = _read(connection, length)
    return None if body is None else msgspec.msgpack.decode(body, type=kind)


def _read(connection: socket.socket, size: int) -> bytes | None:
    chunks = bytearray()
    while len(chunks) < size:
        chunk = connection.recv(min(size - len(chunks), 1 << 20))
        if not chunk:
            return None
        chunks += chunk
    return bytes(chunks)


# ---- the opening


class NotOfThisGroup(Exception):
    """The other end does not have the token, or is not what it says it is."""


def greet(connection: socket.socket, token: str, ranks: int) -> Hello:
    """Rank 0's side: who has connected. Raises NotOfThisGroup, OSError."""
    nonce = challenge()
    send(connection, Challenge(nonce))
    hello = _opening(connection, Hello)
    proven = holds(hello.proof, _proof(token, "rank", nonce, hello.nonce, hello.rank))
    if not proven or not 0 < hello.rank < ranks:
        raise NotOfThisGroup
    send(connection, Accepting(_proof(token, "leader", hello.nonce, nonce, hello.rank)))
    return hello


def introduce(connection: socket.socket, token: str, rank: int, versions: tuple[str, ...]) -> None:
    """The side of a rank above 0. Raises NotOfThisGroup, OSError."""
    asked = _opening(connection, Challenge)
    nonce = challenge()
    send(connection, Hello(rank, nonce, _proof(token, "rank", asked.nonce, nonce, rank), versions))
    accepting = _opening(connection, Accepting)
    if not holds(accepting.proof, _proof(token, "leader", nonce, asked.nonce, rank)):
        raise NotOfThisGroup


def _opening(connection: socket.socket, kind: type[Frame]) -> Frame:
    try:
        frame = receive(connection, kind, _STRANGER)
    except (msgspec.MsgspecError, ValueError) as error:
        raise NotOfThisGroup from error
    if frame is None:
        raise NotOfThisGroup
    return frame


def _proof(token: str, side: str, theirs: bytes, ours: bytes, rank: int) -> bytes:
    return proof(token, f"{side} {rank}", theirs, ours)
