"""The public stream of a pull: an async context manager and an async iterator over what the pull reports."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from squish.pull.events import Progress, PullEvent, Report


class Pull:
    """A pull that runs while the block is open: `async with pull(…) as events: async for event in events: …`.

    Leaving the block stops it, and waits until it has stopped. What it raises comes out of the iteration, after the
    events before it.
    """

    def __init__(self, work: Callable[[Report], Awaitable[None]]) -> None:
        self._work = work
        self._events: deque[PullEvent] = deque()
        self._changed = asyncio.Event()
        self._task: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.ensure_future(self._work(self._report))
        self._task.add_done_callback(lambda _: self._changed.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()  # the caller has left the block and does not want to know

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PullEvent:
        assert self._task is not None, "only inside `async with`"
        while not self._events:
            if self._task.done():
                self._task.result()
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()

    def _report(self, event: PullEvent) -> None:
        """Keep an event until it is asked for; of progress that nobody has looked at, the latest."""
        last = self._events[-1] if self._events else None
        if isinstance(event, Progress) and isinstance(last, Progress) and event.phase == last.phase:
            self._events.pop()
        self._events.append(event)
        self._changed.set()
