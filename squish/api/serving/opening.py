"""When a server begins to answer: once the model that it was started with is loaded, or it ends. It knows no models."""

from __future__ import annotations

import asyncio

from squish.api.errors import RETRY_AFTER, Refused
from squish.errors import QueueFull


class Opening:
    """Requests wait at `passed` until `open` or `close` is called. most: as many may; None: it is open at once."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most or 0
        self.waiting = 0
        self._decided = asyncio.Event()
        self._reason: str | None = None
        if most is None:
            self.open()

    def open(self) -> None:
        """Let everybody in, for good."""
        self._decided.set()

    def close(self, reason: str) -> None:
        """Refuse requests that wait and those to come; does nothing once it is open or closed."""
        if not self._decided.is_set():
            self._reason = reason
            self._decided.set()

    @property
    def decided(self) -> bool:
        return self._decided.is_set()

    @property
    def is_open(self) -> bool:
        """Whether requests are let in without waiting."""
        return self.decided and self._reason is None

    async def passed(self) -> None:
        """Wait until requests are let in. Raises QueueFull, and Refused (503) when the server is not to open."""
        if not self.decided:
            await self._wait()
        if self._reason is not None:
            raise Refused(503, "server_ending", self._reason, {"retry-after": str(RETRY_AFTER)})

    async def _wait(self) -> None:
        if self.waiting >= self._most:
            raise QueueFull(f"{self.waiting} requests are already waiting for this server to load its models.")
        self.waiting += 1
        try:
            await self._decided.wait()
        finally:
            self.waiting -= 1
