"""Memory for a model before it is loaded: the least that it needs, against what is free and not reserved.

It counts and refuses; which models go to make room is the session manager's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import msgspec

from squish.errors import LoadFailed, MemoryShort
from squish.figures import size
from squish.memory import fit, machine
from squish.memory.shares import Spread
from squish.models.manifest import Installed, read_json

_CONTEXT = 4096  # tokens of one conversation that must fit for loading to be worthwhile
_SMALLER = "take a smaller or more compressed model"


class Shortage(msgspec.Struct, frozen=True):
    """Less memory is free than a model needs, where the system makes room by taking it from other programs. Bytes."""

    model: str
    needed: int
    free: int

    def __str__(self) -> str:
        return (
            f"{self.model} needs {size(self.needed)} and {size(self.free)} are free: the system compresses or swaps "
            "what other programs hold, which can make everything slow. Closing some of them helps."
        )

    def refusal(self) -> MemoryShort:
        """For those who do not want it loaded now."""
        return MemoryShort(
            f"{self.model} is not loaded: it needs {size(self.needed)} and {size(self.free)} are free.",
            hint="Close other programs, take a smaller model, or load it anyway.",
            param="model",
        )


class Reservations:
    """read: the machine's memory now; another one stands in for it in tests. parts: into how many ranks models that
    chat are divided, and how many of those are on this machine. kv_bits: those that a model's KV cache is to have."""

    def __init__(
        self,
        read: Callable[[], fit.Machine] = machine.read,
        parts: tuple[int, int] | None = None,
        kv_bits: Callable[[str], int | None] = lambda _: None,
    ) -> None:
        self._read = read
        self._kv_bits = kv_bits
        self._parts = parts
        self._reserved: dict[str, int] = {}
        self._drafts: dict[str, Installed] = {}

    def accompany(self, installed: Installed, draft: Installed | None) -> None:
        """From now on the model is loaded together with one that guesses for it, or alone."""
        if draft:
            self._drafts[installed.manifest.id] = draft
        else:
            self._drafts.pop(installed.manifest.id, None)

    def _least(self, installed: Installed, memory: fit.Machine) -> int:
        draft = self._drafts.get(installed.manifest.id)
        parts = self._parts if installed.manifest.writes else None
        memory = replace(memory, kv_bits=self._kv_bits(installed.manifest.id))
        return _least(installed, memory, parts) + (_least(draft, memory) if draft else 0)

    async def missing(self, installed: Installed, held: int = 0) -> int:
        """Bytes that must become free before this model can be loaded; 0 or less when there is room.

        held: bytes of the models that are loaded. Raises LoadFailed, with the numbers and what to do, when the whole
        machine is too small for it.
        """
        memory = await asyncio.to_thread(self._read)
        least = self._least(installed, memory)
        if least > memory.total:
            raise self._never_fits(installed, least, memory)
        return least - self._free(memory, held)

    async def refuse(self, installed: Installed, held: int = 0) -> LoadFailed:
        """The error for a model that there is no room for now."""
        memory = await asyncio.to_thread(self._read)
        free = max(0, self._free(memory, held))
        least = self._least(installed, memory)
        return LoadFailed(
            f"{self._needs(installed, least)}; {size(free)} of {memory.kind} are free.",
            hint=f"Close other programs or {_SMALLER}: {size(least - free)} are missing.",
            param="model",
        )

    async def shortage(self, installed: Installed) -> Shortage | None:
        """Whether the system would have to take memory from other programs to load this model now."""
        memory = await asyncio.to_thread(self._read)
        least = self._least(installed, memory)
        short = memory.elastic and memory.free < least <= memory.total
        return Shortage(installed.manifest.id, least, memory.free) if short else None

    async def reserve(self, installed: Installed) -> None:
        """Count a model that is being loaded, until `release`: its weights are not in memory yet."""
        memory = await asyncio.to_thread(self._read)
        self._reserved[installed.manifest.id] = self._least(installed, memory)

    def release(self, installed: Installed) -> None:
        """The model is in memory, or will not come."""
        self._reserved.pop(installed.manifest.id, None)

    def _free(self, memory: fit.Machine, held: int) -> int:
        """What is not taken or reserved. Where the system makes room, only our own models count."""
        free = memory.total - held if memory.elastic else memory.free
        return free - sum(self._reserved.values())

    def _needs(self, installed: Installed, least: int) -> str:
        draft = self._drafts.get(installed.manifest.id)
        name = f"{installed.manifest.id} with {draft.manifest.id}" if draft else installed.manifest.id
        return f"{name} needs at least {size(least)} for its weights and {_CONTEXT:,} tokens"

    def _never_fits(self, installed: Installed, least: int, memory: fit.Machine) -> LoadFailed:
        """Closing other programs does not help here; on a Mac, the user can let the GPU have more."""
        more = ", or let the GPU have more (sudo sysctl iogpu.wired_limit_mb=…)" if memory.elastic else ""
        return LoadFailed(
            f"{self._needs(installed, least)}; this machine has {size(memory.total)} for models.",
            hint=f"{_SMALLER.capitalize()}{more}: {size(least - memory.total)} are missing.",
            param="model",
        )


def _least(installed: Installed, memory: fit.Machine, parts: tuple[int, int] | None = None) -> int:
    """What a model needs at the least: as in a memory where nothing can be unpacked. parts: as of Reservations."""
    manifest = installed.manifest
    if not (config := read_json(installed.path / "config.json")):
        return 0  # loading it will say what is wrong with it
    context, least = min(_CONTEXT, manifest.context_length), replace(memory, total=0)
    if parts is not None:
        ranks, here = parts
        return here * Spread.of(config, manifest.parameters, manifest.weights).rank(ranks, context, least).needed
    return fit.estimate(fit.shape_of(config, manifest.parameters), manifest.weights, context, least).needed
