"""Memory of this machine and of a worker process, as the screens show it. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass

from squish.memory import fit, machine
from squish.system.host import HOST


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. used: what cannot be had without swapping."""

    used: int
    total: int


class MemoryReadings:
    """Readings that cost well under a millisecond each, but for `for_models`."""

    def for_models(self) -> fit.Machine:
        """What models may take of this machine; it may ask a GPU's driver, so call it from a thread."""
        return machine.read()

    def memory(self) -> Memory | None:
        reading = HOST.memory()
        return Memory(reading.total - reading.available, reading.total)

    def process_memory(self, pid: int) -> int | None:
        """Bytes that a process takes, or None when it has gone or is not ours."""
        return HOST.footprint(pid)
