"""How a server that stops ends the answers in flight: with an error, not with a reset connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from squish.api.errors import Refused

_REASON = "The server ended before the answer was complete."


class Ending:
    """Ends what runs inside `may_end`. Blocks of one task can stand in each other: then the innermost is ended."""

    def __init__(self) -> None:
        self.begun = False  # whether the server is asked to end
        self._blocks: dict[asyncio.Task[object] | None, list[asyncio.Timeout]] = {}

    @asynccontextmanager
    async def may_end(self) -> AsyncIterator[None]:
        """Raises Refused (503) when the server ends while the block runs."""
        task = asyncio.current_task()
        timeout = asyncio.timeout(None)
        blocks = self._blocks.setdefault(task, [])
        try:
            async with timeout:
                blocks.append(timeout)
                yield
        except TimeoutError:
            if timeout.expired():
                raise Refused(503, "server_ending", _REASON, {"x-should-retry": "false"}) from None
            raise
        finally:
            blocks.remove(timeout)
            if not blocks:
                self._blocks.pop(task, None)

    def end(self) -> None:
        """End what runs now."""
        now = asyncio.get_running_loop().time()
        for blocks in self._blocks.values():
            blocks[-1].reschedule(now)
