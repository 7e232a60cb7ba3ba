"""What a key may do at a time: requests a minute, and requests together. Pure but for the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from squish.api.clients.keys import ApiKey
from squish.api.errors import Refused

_MINUTE = 60.0


class KeyLimits:
    """Counts what each key does in this process. clock: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[str, int] = {}
        self._left: dict[str, tuple[float, float]] = {}  # requests that it still may send, and when that was counted

    @contextmanager
    def asking(self, key: ApiKey | None) -> Iterator[None]:
        """Around a request for an answer. Raises Refused (429), which says when to try again."""
        if key is None:
            yield
            return
        running = self._running.get(key.name, 0)
        if key.concurrent_requests is not None and running >= key.concurrent_requests:
            message = f"The key {key.name} may have {_requests(key.concurrent_requests)} at a time."
            raise Refused(429, "rate_limit_exceeded", message, {"retry-after": "1"})
        if key.requests_per_minute is not None:
            self._spend(key.name, key.requests_per_minute)
        self._running[key.name] = running + 1
        try:
            yield
        finally:
            self._running[key.name] -= 1

    def _spend(self, name: str, per_minute: int) -> None:
        """A bucket that fills evenly: a minute's worth can come at once after a minute's silence."""
        now = self._clock()
        left, counted = self._left.get(name, (float(per_minute), now))
        left = min(per_minute, left + (now - counted) * per_minute / _MINUTE)
        if left < 1:
            self._left[name] = left, now
            seconds = math.ceil((1 - left) * _MINUTE / per_minute)
            message = f"The key {name} may send {_requests(per_minute)} a minute."
            raise Refused(429, "rate_limit_exceeded", message, {"retry-after": str(seconds)})
        self._left[name] = left - 1, now


def _requests(count: int) -> str:
    return f"{count} request{'s' * (count != 1)}"
