"""When text that arrives may be put on the screen."""

from __future__ import annotations

MIN_INTERVAL = 0.05
COST_FACTOR = 4


class FlushPacer:
    """At least 50 ms apart, and four times what the last time cost.

    A long list costs 50 times what prose costs, so a fixed rhythm would either stutter or take a whole core.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def delay(self, now: float) -> float:
        """Seconds to wait."""
        return max(self._next - now, 0.0)

    def flushed(self, start: float, end: float) -> None:
        self._next = start + max(MIN_INTERVAL, COST_FACTOR * (end - start))
