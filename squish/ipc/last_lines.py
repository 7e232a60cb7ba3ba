"""What a process that was started here says on its standard error, read to its end: a full pipe would stop it."""

from __future__ import annotations

import asyncio
from collections import deque

from squish.system.pipes import let_go

_MOMENT = 1.0  # seconds


class LastLines:
    """lines: the last that the process has written, as it wrote them; those that are too long are not kept."""

    def __init__(self, process: asyncio.subprocess.Process, most: int = 40) -> None:
        assert process.stderr is not None
        self.lines: deque[str] = deque(maxlen=most)
        self._process = process
        self._task = asyncio.create_task(self._collect(process.stderr))

    async def rest(self) -> None:
        """Wait a moment for what a process that has ended said last."""
        await asyncio.wait([self._task], timeout=_MOMENT)

    def close(self) -> None:
        """Hear no more of the process, and say no more to it."""
        self._task.cancel()
        let_go(self._process)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    async def _collect(self, stream: asyncio.StreamReader) -> None:
        try:
            while line := await stream.readline():
                self.lines.append(line.decode(errors="replace").rstrip())
        except ValueError:  # a line longer than the reader's buffer: not worth keeping, but the pipe must not fill up
            while await stream.read(65536):
                pass
