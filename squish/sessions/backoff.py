"""Owns how long to wait before something that ended by itself is started again. Pure: it is told the time."""

from __future__ import annotations

_LONGEST = 30.0
_LONG_ENOUGH = 60.0  # seconds of life after which an end does not count together with the one before


class Backoff:
    """The first new start is at once; each further one waits twice as long, at least a second."""

    def __init__(self) -> None:
        self._ends = 0
        self._not_before = 0.0
        self._started = 0.0

    def started(self, now: float) -> None:
        self._started = now

    def ended(self, now: float) -> None:
        """By itself, and not because somebody wanted it to."""
        self._ends = 1 if now - self._started > _LONG_ENOUGH else self._ends + 1
        self._not_before = now + (0.0 if self._ends == 1 else min(_LONGEST, 2 ** (self._ends - 2)))

    def wait(self, now: float) -> float:
        """Seconds until it may be started."""
        return max(0.0, self._not_before - now)
