"""The vectors for one request, as the caller waits for them."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self

from squish.embeddings import EmbeddingRequest, Embeddings
from squish.errors import EngineError, SquishError
from squish.generation import Accepted, Finished, GenerationEvent, Timings, Usage
from squish.ipc.frames import Embed
from squish.sessions.activity import Log, RequestFollower

if TYPE_CHECKING:
    from squish.sessions.engine import Engine


class EmbeddingWork:
    """One request for vectors, to be used with `async with`; `result` waits for them. It is `Work` for an engine.

    Entering admits the request or raises QueueFull at once. Leaving the block cancels what still runs.
    """

    def __init__(
        self, engine: Engine, request: EmbeddingRequest, log: Log, follower: RequestFollower | None = None
    ) -> None:
        self.request = request
        self.rows = request.rows
        self.keep_alive = request.keep_alive
        self.account, self.background = request.account, request.background
        self.unfinished, self.grammar = {0}, False
        self.sent = self.heard = self.cancelled = False
        self.attempts = 0
        self._engine, self._log = engine, log
        self._followers = [follower] if follower else []
        self._result: asyncio.Future[Embeddings] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._followers.append(self._log.begin(self.request, self.cancel))
        try:
            self._engine.admit(self)
        except SquishError as error:
            for each in self._followers:
                each.fail(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._engine.cancel(self)
        if self._result.done() and not self._result.cancelled():
            self._result.exception()  # the caller left before it came, so nobody reads it
        self._result.cancel()

    async def result(self) -> Embeddings:
        """The vectors. Raises what the model has against the request, and what became of its worker."""
        return await asyncio.shield(self._result)

    def cancel(self) -> None:
        """Ask for its end; those who wait get an error."""
        self._engine.cancel(self)

    def frame(self, id: int) -> Embed:
        asked = self.request
        return Embed(id, asked.inputs, asked.dimensions, asked.prompt_name, asked.truncate)

    def begin(self) -> None:
        """It goes to a worker that has loaded the model (for the engine)."""
        self.sent = True
        self.attempts += 1

    def put(self, event: GenerationEvent) -> None:
        """Where it is on its way (for the engine)."""
        for each in self._followers:
            each.see(event)

    def finish(self, embeddings: Embeddings) -> None:
        """Hand over the vectors (for the engine)."""
        self.unfinished.clear()
        self.put(Accepted(embeddings.tokens))
        self.put(Finished(0, "stop", Usage(sum(embeddings.tokens), 0), Timings(0.0, 0.0)))
        if not self._result.done():
            self._result.set_result(embeddings)

    def fail(self, error: SquishError) -> None:
        """End with this error (for the engine)."""
        if self.unfinished:
            self.unfinished.clear()
            for each in self._followers:
                each.fail(error)
            if not self._result.done():
                self._result.set_exception(error)

    def finish_unsent(self) -> None:
        """End a request that the worker never saw (for the engine)."""
        self.put(Finished(0, "cancelled", Usage(0, 0), Timings(0.0, 0.0)))
        self.fail(EngineError("The request was cancelled."))
