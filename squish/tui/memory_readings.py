"""Memory of this machine and of a worker process, as the screens show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from squish.memory import fit, machine
from squish.system.host import HOST

if TYPE_CHECKING:
    from squish.sessions.model_status import ModelStatus


class Memory(msgspec.Struct, frozen=True):
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

    def of_model(self, status: ModelStatus) -> int | None:
        """Bytes that a loaded model's process takes, or None where nobody knows."""
        if status.process_bytes:
            return status.process_bytes
        return self.process_memory(status.pid) if status.pid else None

    def process_memory(self, pid: int) -> int | None:
        """Bytes that a process takes, or None when it has gone or is not ours."""
        return HOST.footprint(pid)
