"""One answer of a server, as the caller sees it: events that come, an error, or an end that was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self

from squish.errors import InvalidInput, ModelNotFound, RemoteError, SquishError
from squish.generation import Accepted, Finished, GenerationEvent, GenerationRequest
from squish.remote import fields
from squish.remote.connection import Refusal, ServerConnection
from squish.remote.reader import AnswerLimits, ChunkReader
from squish.sessions.activity import Log, Trace
from squish.sessions.model_status import ModelStatus

_FAREWELL = 2.0  # seconds that closing the connection may take


class RemoteGeneration:
    """An async context manager and an async iterator of events. Leaving the block closes the connection, by which the
    server knows that nobody waits any more. context: tokens that the model can read there, 0 where it is not known."""

    def __init__(
        self, connection: ServerConnection, path: str, request: GenerationRequest, body: dict[str, Any], log: Log,
        *, context: int = 0, accepts: bool = False, headers: Mapping[str, str] = MappingProxyType({}),
        refused: set[str] | None = None,
    ) -> None:  # fmt: skip
        """refused: fields that this model is known not to take; what it refuses is added."""
        self._connection, self._path, self._body = connection, path, body
        self._refused = set[str]() if refused is None else refused
        for each in self._refused:
            self._body = fields.without(self._body, each) or self._body
        self._request, self._log, self._headers = request, log, headers
        self._events: asyncio.Queue[GenerationEvent | SquishError] = asyncio.Queue()
        limits = AnswerLimits(request.sampling.max_tokens, request.sampling.context_in(context))
        self._reader = ChunkReader(time.monotonic, connection.said, accepts, connection.name, limits)
        self._task: asyncio.Task[None] | None = None
        self._trace: Trace | None = None
        self._over = False

    async def __aenter__(self) -> Self:
        self._trace = self._log.begin(self._request, self.cancel)
        self._task = asyncio.create_task(self._read(), name="remote answer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_FAREWELL)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GenerationEvent:
        if self._over and self._events.empty():
            raise StopAsyncIteration
        event = await self._events.get()
        if isinstance(event, SquishError):
            raise event
        return event

    def hear(self, statuses: Iterable[ModelStatus]) -> None:
        """Take in what the server says of its models."""
        if any(each.serves(self._request.model) and each.state == "loading" for each in statuses):
            self._reader.loads()

    def cancel(self) -> None:
        """End it; what was written stays, and it finishes with reason "cancelled"."""
        if not self._over:
            self._put(self._reader.finished("cancelled"))
        if self._task is not None and not self._task.cancelling():  # a second would interrupt the closing
            self._task.cancel()

    async def _read(self) -> None:
        try:
            while not self._over:
                try:
                    await self._read_answer()
                except Refusal as refusal:
                    self._ask_otherwise(refusal)
        except SquishError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  else the reader would wait on
            self._fail(RemoteError(f"The answer could not be read ({type(error).__name__})."))

    async def _read_answer(self) -> None:
        async with self._connection.events(self._path, self._body, self._headers) as events:
            async for data in events:
                for event in self._reader.feed(data):
                    self._put(event)
                if self._reader.done:
                    break
        for event in self._reader.end():
            self._put(event)

    def _ask_otherwise(self, refusal: Refusal) -> None:
        """Next without the field that was refused. Raises what the refusal means where that is not possible."""
        body = fields.without(self._body, refusal.refused) if refusal.status == 400 else None
        if body is None:
            raise _meant(refusal) from None
        self._refused.add(refusal.refused)
        self._body = body

    def _put(self, event: GenerationEvent) -> None:
        if self._over:
            return
        self._over = isinstance(event, Finished)
        if self._trace:
            if isinstance(event, Finished):  # only now the server has said how long the prompt was
                self._trace.see(Accepted((event.usage.prompt_tokens,)))
            self._trace.see(event)
        self._events.put_nowait(event)

    def _fail(self, error: SquishError) -> None:
        if self._over:
            return
        self._over = True
        if self._trace:
            self._trace.fail(error)
        self._events.put_nowait(error)


def _meant(refusal: Refusal) -> SquishError:
    """A refusal as the error that the same would be here: what was asked cannot be done, or the model has gone."""
    kind = {400: InvalidInput, 413: InvalidInput, 422: InvalidInput, 404: ModelNotFound}.get(refusal.status)
    return refusal if kind is None else kind(refusal.message, hint=refusal.hint, param=refusal.param)
