"""How busy the engine was over the last five minutes, a point every ten seconds: for the server screen's charts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from squish.sessions.backend import Sessions
from squish.tui.memory_readings import Memory, MemoryReadings

PERIOD = 10.0
_POINTS = 30


class LoadPoint(msgspec.Struct, frozen=True):
    """speed: tokens per second of all requests since the point before; queue: requests in line."""

    speed: float
    queue: int
    memory: Memory | None


class LoadHistory:
    """points: the oldest first. clock gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.points = deque[LoadPoint](maxlen=_POINTS)
        self._clock = clock
        self._read: float | None = None
        self._tokens = 0
        self._loading: dict[str, float] = {}

    def loading_for(self, model: str) -> float | None:
        """Seconds that a model has been loading; None when it is not."""
        began = self._loading.get(model)
        return None if began is None else self._clock() - began

    def read(self, sessions: Sessions, machine: MemoryReadings) -> None:
        """Add a point, if one is due; cheap enough to be called several times a second."""
        now = self._clock()
        loading = [each.name for each in sessions.status() if each.state == "loading"]
        self._loading = {name: self._loading.get(name, now) for name in loading}
        since = None if self._read is None else now - self._read
        if since is not None and since < PERIOD:
            return
        tokens = sessions.totals().completion_tokens
        # Pieces are counted until the engine's own figure is there, which can be smaller.
        speed = max(tokens - self._tokens, 0) / since if since else 0.0
        queue = sum(each.state == "queued" for each in sessions.activity())
        self.points.append(LoadPoint(speed, queue, machine.memory()))
        self._read, self._tokens = now, tokens
