"""How long a loaded model stays in memory once it is idle, and the timer that then unloads it. It knows no worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class KeepAlive:
    """seconds: how long it stays, negative is forever; pinned: it stays whatever happens; unload: ends it."""

    def __init__(self, seconds: float, unload: Callable[[], None]) -> None:
        self._seconds, self._unload = seconds, unload
        self._pinned = False
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pinned(self) -> bool:
        return self._pinned

    @property
    def idle_since(self) -> float | None:
        """Since when it has been idle, in the loop's time, if it is; None where it is not to be unloaded for others."""
        return None if self._pinned else self._since

    @property
    def remaining(self) -> float | None:
        """Seconds until the model is unloaded if nobody asks for it; None where it is kept."""
        if self._seconds < 0 or self._pinned:
            return None
        if self._timer is None:
            return self._seconds
        # The loop's clock, which is asked from threads as well: memory is read in one, and a model's state with it.
        return max(0.0, self._timer.when() - time.monotonic())

    def begin(self) -> None:
        """The model has become idle."""
        self._since = asyncio.get_running_loop().time()
        self._restart()

    def stop(self) -> None:
        """The model is not idle any more, or gone."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def stay(self, seconds: float, *, idle: bool) -> None:
        """Stay this long from now on. idle: whether the model is, so that the time runs from now."""
        self._seconds = seconds
        self._apply(idle)

    def pin(self, pinned: bool, *, idle: bool) -> None:
        self._pinned = pinned
        self._apply(idle)

    def _apply(self, idle: bool) -> None:
        self.stop()
        if idle:
            self._restart()

    def _restart(self) -> None:
        self.stop()
        if self._seconds >= 0 and not self._pinned:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._unload)
