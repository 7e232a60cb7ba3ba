"""The line of the terminal that counts the seconds until a server answers, before there is a screen."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from squish import figures
from squish.text import clean

TICK = 0.5
_WIPE = "\r\x1b[2K"


@asynccontextmanager
async def connecting(url: str, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[None]:
    """Show it while the block runs, and wipe it away at the end."""
    stream = sys.__stderr__  # of the guard: the terminal itself
    if stream is None or not stream.isatty():
        yield
        return

    def write(text: str) -> None:
        with suppress(OSError):  # the terminal may have gone
            stream.write(_WIPE + text)
            stream.flush()

    async def count() -> None:
        began = clock()
        while True:
            write(line(url, clock() - began, shutil.get_terminal_size().columns))
            await asyncio.sleep(TICK)

    counting = asyncio.create_task(count())
    try:
        yield
    finally:
        counting.cancel()
        write("")


def line(url: str, waited: float, columns: int) -> str:
    """`Connecting to URL … 4 s · ctrl+c stops`; what is too long for the terminal is taken from the address."""
    seconds = f" {figures.waited(waited)} ·" if waited >= 1 else ""
    end = f" …{seconds} ctrl+c stops"
    return f"Connecting to {clean(url)}"[: max(columns - len(end) - 1, 0)] + end
