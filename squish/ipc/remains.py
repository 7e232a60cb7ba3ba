"""How a process that we started ends: by itself where it was asked to, or at once, with what it has started."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from squish.ipc.last_lines import LastLines


async def wait_then_insist(
    process: asyncio.subprocess.Process, said: LastLines, insist: Callable[[], None], grace: float
) -> None:
    """Wait so many seconds for a process that was asked to end, then insist, and hear what it said last, which says
    more than its exit code; where nobody waits any more, insist at once. insist: may be called again, and too late.
    """
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await process.wait()
        insist()
        await said.rest()
    except asyncio.CancelledError:
        insist()
        raise
    finally:
        said.close()  # what it has started may stay behind, and hold the pipe
    await process.wait()


def end_all(leader: int) -> None:
    """At once. leader: its process id; where it has ended, just now, before another process can have its number."""
    with suppress(ProcessLookupError, PermissionError):  # nothing is left
        os.killpg(leader, signal.SIGKILL)
