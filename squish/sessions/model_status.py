"""What is known of a model that is in memory, on its way there, or failed: one definition for every front door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from squish.ipc.frames import Loaded
from squish.sessions.engine import Engine

_NOT_LOADED = Loaded(context_length=0, weights_bytes=0, backend="")


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model that is in memory, on its way there, or failed.

    weights_bytes and context_length (tokens) are 0 until it is ready. pinned: it is not unloaded when it is idle.
    unloads_in: seconds until it is, if nobody asks for it; None where it is kept.
    compiling: while it is loading, the engine is compiled first.
    process_bytes: that its process takes, as a server says; here, pid tells it.
    served: it can be asked, at a server that does not say whether it is in memory. kernel, precision and kv_bits: as in
    `Loaded`.
    """

    name: str
    state: Literal["loading", "ready", "failed", "served"]
    running: int
    waiting: int
    pid: int | None
    weights_bytes: int
    context_length: int
    backend: str
    error: str | None
    pinned: bool = False
    unloads_in: float | None = None
    kernel: str = ""
    precision: str = ""
    kv_bits: int = 0
    compiling: bool = False
    process_bytes: int = 0

    def serves(self, id: str) -> bool:
        """Whether it answers for a model: for itself, and with each of its adapters."""
        return id.partition("+")[0] == self.name


def status_of(name: str, engine: Engine) -> ModelStatus | None:
    """Of the engine of a model; None for one that is unloaded."""
    if engine.state == "unloaded":
        return None
    loaded = engine.loaded or _NOT_LOADED
    return ModelStatus(
        name=name,
        state=engine.state,
        running=engine.running,
        waiting=engine.waiting,
        pid=engine.pid,
        weights_bytes=loaded.weights_bytes,
        context_length=loaded.context_length,
        backend=loaded.backend,
        error=engine.error.message if engine.error else None,
        pinned=engine.pinned,
        unloads_in=engine.unloads_in,
        kernel=loaded.kernel,
        precision=loaded.precision,
        kv_bits=loaded.kv_bits,
        compiling=engine.compiling,
    )
