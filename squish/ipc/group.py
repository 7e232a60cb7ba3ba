"""A model over several processes: what one rank is, how it is started, and what starts all of them.

Rank 0 is the worker of the front process and decides everything. The others repeat its forwards: they are started by a
`Ranks`, report to rank 0's control address, and end when it ends, or when their standard input is closed. It knows
neither MLX nor how another machine is reached.
"""

from __future__ import annotations

import secrets
import sys
from typing import Literal, Protocol

import msgspec

Backend = Literal["ring", "jaccl"]

BY_HEADS = ("llama", "qwen2", "qwen3", "gemma3_text", "smollm3")
"""Modules of mlx_lm.models whose blocks have q, k, v and o projections by heads, and a gated MLP, and nothing else.

They are divided by heads that need not divide evenly, and the embedding and the output layer are on rank 0 alone.
"""


class Rank(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One process of a group.

    rank: 0 … len(addresses) - 1. addresses: "ip:port" of every rank in order, where MLX listens. control: "ip:port"
    where rank 0 listens for the others. token: shows that they belong together; it is never sent over the network.
    model: the model directory on this rank's machine; cache_dir: where it keeps what it compiles.
    devices: with jaccl, for every rank the RDMA device by which it reaches each other one; coordinator: "ip:port".
    names: of the ranks' hosts, for messages; none where they are all on one machine.
    """

    rank: int
    addresses: tuple[str, ...]
    control: str
    token: str
    model: str
    cache_dir: str
    backend: Backend = "ring"
    devices: tuple[tuple[str | None, ...], ...] = ()
    coordinator: str = ""
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Ranks of the group."""
        return len(self.addresses)

    def called(self, rank: int) -> str:
        """What a message calls a rank of the group: with its host, as somebody may have to go there."""
        return f"Rank {rank} of the group ({self.names[rank]})" if self.names else f"Rank {rank} of the group"


class Command(msgspec.Struct, frozen=True):
    """What starts a rank on its machine.

    argv: without secrets. stdin: what the process reads first. After it, standard input stays open as long as the rank
    is wanted: it ends itself when that closes. environment: what has to be set besides what is there.
    """

    argv: tuple[str, ...]
    stdin: bytes
    environment: dict[str, str]


def command(rank: Rank, python: str = sys.executable) -> Command:
    """How a rank above 0 is started. python: the interpreter of the Squish on its machine."""
    # -P: a folder named squish in the current directory must not be imported instead of us
    return Command((python, "-P", "-m", "squish.worker.group"), msgspec.json.encode(rank) + b"\n", {})


def read_rank(line: bytes) -> Rank:
    """The rank that `command` put on standard input. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(line, type=Rank)


def heads_of_ranks(heads: int, ranks: int) -> list[int]:
    """How many of a layer's key-value heads each rank has, at least as many heads as ranks.

    Where they cannot be divided evenly, the last ranks have one more: rank 0 has other things to do too.
    """
    few, more = divmod(heads, ranks)
    return [few + (rank >= ranks - more) for rank in range(ranks)]


def new_token() -> str:
    """A secret for one group, of one start."""
    return secrets.token_urlsafe(32)


class Member(Protocol):
    """A started rank above 0, wherever it runs."""

    async def ended(self) -> str:
        """Wait until its process has ended; what it said last, for an error message, or ""."""

    async def close(self) -> None:
        """End it and wait for its end. Safe to call twice."""


class Ranks(Protocol):
    """Where the ranks of a group run, and how those above 0 are started there."""

    @property
    def size(self) -> int:
        """Ranks of a group, at least two."""

    @property
    def here(self) -> int:
        """How many of them run on this machine."""

    async def plan(self, model: str, cache_dir: str) -> tuple[Rank, ...]:
        """The ranks of a new group for a model directory, with a token of their own. Raises SquishError."""

    async def start(self, rank: Rank) -> Member:
        """Start a rank above 0. Raises SquishError."""
