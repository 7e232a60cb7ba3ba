"""How long nothing may come from another program before it is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def silence(seconds: float | None) -> AsyncIterator[None]:
    """A timeout in two halves: where this process was itself stopped for so long, as by ctrl+z or because the machine
    slept, what was sent in the meantime is read in the second. None: no timeout. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        half = (seconds or 0.0) / 2
        timer = loop.call_later(half, lambda: limit.reschedule(loop.time() + half)) if seconds else None
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
