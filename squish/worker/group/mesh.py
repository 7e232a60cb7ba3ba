"""Sums with the other ranks where MLX computes on a CPU: a TCP connection between every two ranks, and blocking reads.

MLX's ring waits for its neighbors by asking again and again, which takes from the ranks of the same machine the core
that they compute on: with more ranks than idle cores a sum takes 20 ms instead of 0.1. Here a rank that waits sleeps.
Every rank adds up in the order of ranks, so all have the same numbers, whatever stands beside them in the batch.

Connections are taken from the ranks' own addresses only, and need the group's token.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import mlx.core as mx
import numpy as np

from squish.errors import LoadFailed
from squish.ipc import group_frames
from squish.ipc.group import Rank
from squish.ipc.group_frames import NotOfThisGroup
from squish.worker.group.addresses import split

_CONNECT = 60.0
_PART = 1 << 15  # bytes on their way at the same time: less than what two systems hold for a connection


class PeerLost(Exception):
    """Another rank has ended. Which one, rank 0 finds out by its own connection to it."""


class Mesh:
    """It stands for MLX's group too: `rank()`, `size()`. Belongs to the thread that computes."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._peers = _connect(rank)

    def rank(self) -> int:
        return self._rank.rank

    def size(self) -> int:
        return self._rank.size

    def close(self) -> None:
        for connection in self._peers.values():
            connection.close()

    def replace(self) -> None:
        """From now on, what models do together with other ranks in this process goes through this mesh."""
        module: Any = mx.distributed
        module.all_sum, module.all_gather = self._all_sum, self._all_gather
        module.send, module.recv_like = self._send, self._recv_like

    def _all_sum(self, x: mx.array, **_: Any) -> mx.array:
        parts = self._exchange(_numbers(x.astype(mx.float32)))
        total = parts[0] + parts[1]
        for part in parts[2:]:
            total += part
        return mx.array(total).astype(x.dtype)

    def _all_gather(self, x: mx.array, **_: Any) -> mx.array:
        return mx.array(np.concatenate(self._exchange(_numbers(x.astype(mx.float32))))).astype(x.dtype)

    def _send(self, x: mx.array, dst: int, **_: Any) -> mx.array:
        _put(self._peers[dst], memoryview(_bytes(_numbers(x.astype(mx.float32)))))
        return x

    def _recv_like(self, x: mx.array, src: int, **_: Any) -> mx.array:
        received = np.empty(x.shape, np.float32)
        _fill(self._peers[src], memoryview(_bytes(received)))
        return mx.array(received).astype(x.dtype)

    def _exchange(self, own: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """The same of every rank, in their order. Sent and read in turns, so that nobody waits for room to write.

        Raises PeerLost.
        """
        parts = {rank: np.empty_like(own) for rank in self._peers} | {self.rank(): own}
        mine = memoryview(_bytes(own))
        theirs = {rank: memoryview(_bytes(parts[rank])) for rank in self._peers}
        for at in range(0, len(mine), _PART):
            for peer in self._peers.values():
                _put(peer, mine[at : at + _PART])
            for rank, peer in self._peers.items():
                _fill(peer, theirs[rank][at : at + _PART])
        return [parts[rank] for rank in range(self.size())]


def _numbers(x: mx.array) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(np.array(x, copy=False))


def _bytes(array: np.ndarray[Any, Any]) -> Any:
    return array.reshape(-1).view(np.uint8).data


def _put(connection: socket.socket, data: memoryview) -> None:
    try:
        connection.sendall(data)
    except OSError as error:
        raise PeerLost from error


def _fill(connection: socket.socket, into: memoryview) -> None:
    while into:
        try:
            read = connection.recv_into(into)
        except OSError as error:
            raise PeerLost from error
        if not read:
            raise PeerLost
        into = into[read:]


def _connect(rank: Rank) -> dict[int, socket.socket]:
    """A connection to every other rank, in their order: to those below, and from those above. Raises LoadFailed."""
    end = time.monotonic() + _CONNECT
    token = f"{rank.token} mesh"
    peers: dict[int, socket.socket] = {}
    try:
        with socket.create_server(split(rank.addresses[rank.rank])) as listener:
            for other in range(rank.rank):
                peers[other] = _reach(rank, other, token, end)
            while len(peers) < rank.size - 1:
                listener.settimeout(max(0.01, end - time.monotonic()))
                other, connection = _take(*listener.accept(), rank, token)
                if connection:
                    peers[other] = connection
    except OSError as error:
        raise _failure(rank, peers, error) from error
    for connection in peers.values():
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return dict(sorted(peers.items()))


def _failure(rank: Rank, peers: Iterable[int], error: OSError) -> LoadFailed:
    """Why there is not a connection to every other rank. peers: those that are connected."""
    if error.errno == errno.EADDRINUSE:
        taken = f"Another program has {rank.addresses[rank.rank]}, where rank {rank.rank} of the group has to listen."
        return LoadFailed(taken, hint="End it; with hosts.toml, `port` of that host sets another port.")
    missing = sorted(set(range(rank.size)) - {rank.rank, *peers})
    names = " and ".join(f"rank {other} ({rank.addresses[other]})" for other in missing)
    return LoadFailed(f"Rank {rank.rank} of the group could not connect to {names}: {error}.")


def _reach(rank: Rank, other: int, token: str, end: float) -> socket.socket:
    own, _ = split(rank.addresses[rank.rank])

    def attempt() -> socket.socket:
        connection = socket.create_connection(split(rank.addresses[other]), 10.0, source_address=(own, 0))
        try:
            group_frames.introduce(connection, token, rank.rank, ())
        except BaseException:
            connection.close()
            raise
        return connection

    return _until(end, attempt)


def _until(end: float, attempt: Callable[[], socket.socket]) -> socket.socket:
    """Another rank listens as soon as it is told to join, which may be a little later than here."""
    while True:
        try:
            return attempt()
        except NotOfThisGroup:
            raise ConnectionError("another rank refused the connection") from None
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _take(connection: socket.socket, address: Any, rank: Rank, token: str) -> tuple[int, socket.socket | None]:
    above = rank.addresses[rank.rank + 1 :]
    if address[0] in {split(each)[0] for each in above}:
        connection.settimeout(10.0)
        with suppress(NotOfThisGroup, OSError):
            hello = group_frames.greet(connection, token, rank.size)
            if hello.rank > rank.rank:
                return hello.rank, connection
    connection.close()
    return 0, None
