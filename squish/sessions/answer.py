"""The answer to one request, as the caller sees it: events that come, an error, or an end that was asked for."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from squish.errors import SquishError
from squish.generation import ChatPrompt, Finished, GenerationEvent, GenerationRequest, Loading, Timings, Usage
from squish.ipc.frames import Generate
from squish.sessions.activity import Log, RequestFollower
from squish.system.awake import awake

if TYPE_CHECKING:
    from squish.sessions.engine import Engine


class Generation:
    """The answer to one request: an async context manager and an async iterator of events.

    Entering admits the request or raises (QueueFull, InvalidInput) at once. Leaving the block cancels what still runs.
    """

    def __init__(
        self,
        engine: Engine,
        request: GenerationRequest,
        log: Log | None = None,
        adapter: str | None = None,
        follower: RequestFollower | None = None,
    ) -> None:
        self.request = request
        self._adapter = adapter
        self.rows = request.rows
        self.keep_alive = request.keep_alive
        self.account, self.background = request.account, request.background
        self.unfinished = set(range(self.rows))
        self.sent = False
        self.heard = False  # whether the worker has said anything of it
        self.cancelled = False
        self.attempts = 0
        self._engine = engine
        self._log = log
        self._followers = [follower] if follower else []
        self._loading_since: float | None = None
        self._load = 0.0  # seconds
        self._awake = ExitStack()
        self._events: asyncio.Queue[GenerationEvent | SquishError] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        if self._log:
            self._followers.append(self._log.begin(self.request, self.cancel))
        try:
            self._engine.admit(self)
        except SquishError as error:
            for each in self._followers:
                each.fail(error)
            raise
        self._awake.enter_context(awake())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._engine.cancel(self)
        self._awake.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GenerationEvent:
        if not self.unfinished and self._events.empty():
            raise StopAsyncIteration
        event = await self._events.get()
        if isinstance(event, SquishError):
            try:
                raise event
            finally:
                del event  # else the error and this frame, with the prompt, would hold each other
        return event

    def cancel(self) -> None:
        """Ask the rows to end. What was generated stays; each row finishes with reason "cancelled"."""
        self._engine.cancel(self)

    @property
    def grammar(self) -> bool:
        tools = any(isinstance(each, ChatPrompt) and each.tools for each in self.request.prompts)
        return tools or self.request.sampling.response_format is not None

    def begin(self) -> None:
        """It goes to a worker that has loaded the model (for the engine)."""
        self.sent = True
        self.attempts += 1
        if self._loading_since is not None:
            self._load += time.monotonic() - self._loading_since
            self._loading_since = None

    def frame(self, id: int) -> Generate:
        """What the worker is asked (for the engine)."""
        return Generate(id, self.request.prompts, self.request.sampling, self._adapter, self.account, self.background)

    def put(self, event: GenerationEvent) -> None:
        """Hand over an event (for the engine)."""
        if isinstance(event, Loading):
            self._loading_since = self._loading_since or time.monotonic()
        elif isinstance(event, Finished):
            self.unfinished.discard(event.index)
            timings = msgspec.structs.replace(event.timings, load=self._load)
            event = msgspec.structs.replace(event, timings=timings)
        for each in self._followers:
            each.see(event)
        self._events.put_nowait(event)

    def fail(self, error: SquishError) -> None:
        """End with this error (for the engine)."""
        if self.unfinished:
            self.unfinished.clear()
            for each in self._followers:
                each.fail(error)
            self._events.put_nowait(error)

    def finish_unsent(self) -> None:
        """End a request that the worker never saw (for the engine)."""
        for index in sorted(self.unfinished):
            self.put(Finished(index, "cancelled", Usage(0, 0), Timings(0.0, 0.0)))
