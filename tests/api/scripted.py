"""A session manager whose engine is the test: it decides when a request is accepted, answered, refused or fails.

For states that the real engine passes through too quickly to be tested: waiting, loading, faults. The Generation handed
to the front door is the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, cast

from squish.api.serving.opening import Opening
from squish.api.serving.options import Options
from squish.api.serving.server import Address, Shutdown, serve
from squish.config.settings import Settings
from squish.embeddings import EmbeddingRequest, Embeddings
from squish.errors import SquishError
from squish.generation import (
    Accepted,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Prompt,
    TextDelta,
    Timings,
    Usage,
)
from squish.runtime import Runtime
from squish.sessions.activity import RequestFollower, RequestStatus, Totals
from squish.sessions.answer import Generation
from squish.sessions.engine import Engine
from squish.sessions.manager import SessionManager
from squish.sessions.model_status import ModelStatus


class ScriptedSessions:
    """generate() as SessionManager has it.

    Requests come out of `admitted`, and those that were left before their end also out of `cancelled`. kept: what was
    loaded, and how long it is to stay.
    """

    def __init__(self) -> None:
        self.refusal: SquishError | None = None
        self.crash: Exception | None = None
        self.state: Literal["loading", "ready"] = "ready"
        self.statuses: list[ModelStatus] | None = None
        self.rows: list[RequestStatus] = []
        self.requests: list[GenerationRequest] = []
        self.kept: list[tuple[str, float | str | None]] = []
        self.admitted: asyncio.Queue[Script] = asyncio.Queue()
        self.cancelled: asyncio.Queue[Generation] = asyncio.Queue()

    def generate(self, request: GenerationRequest, follower: RequestFollower | None = None) -> Generation:
        if self.crash:
            raise self.crash
        self.requests.append(request)
        return Generation(cast(Engine, self), request, follower=follower)

    def admit(self, generation: Generation) -> None:
        if self.refusal:
            raise self.refusal
        self.admitted.put_nowait(Script(generation))

    async def embed(self, request: EmbeddingRequest, follower: RequestFollower | None = None) -> Embeddings:
        if self.refusal:
            raise self.refusal
        if follower:
            follower.see(Accepted((3,) * len(request.inputs)))
            follower.see(Finished(0, "stop", Usage(3 * len(request.inputs), 0), Timings(0.0, 0.0)))
        return Embeddings(bytes(8) * len(request.inputs), 2, (3,) * len(request.inputs), request.model)

    def load_anyway(self, name: str) -> None:
        self.kept.append((name, "wanted"))

    async def load(self, name: str) -> None:
        self.kept.append((name, "loaded"))

    def keep(self, name: str, seconds: float | None) -> None:
        self.kept.append((name, seconds))

    async def count_loading(self, name: str, prompts: tuple[Prompt, ...]) -> tuple[int, ...]:
        if self.refusal:
            raise self.refusal
        return tuple(range(7, 7 + len(prompts)))

    async def unload(self, name: str) -> None:
        self.kept.append((name, "unloaded"))

    def status(self) -> list[ModelStatus]:
        if self.statuses is not None:
            return self.statuses
        return [ModelStatus("m", self.state, 1, 2, None, 1000, 2048, "test", None)]

    def activity(self) -> list[RequestStatus]:
        return self.rows

    def totals(self) -> Totals:
        return Totals()

    def cancel(self, generation: Generation) -> None:
        if generation.unfinished:
            self.cancelled.put_nowait(generation)
            generation.finish_unsent()


class Script:
    """One admitted request, played by the test."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation

    def accept(self, *prompt_tokens: int) -> None:
        self.generation.put(Accepted(prompt_tokens or (7,) * self.generation.rows))

    def say(self, text: str, index: int = 0) -> None:
        self.generation.put(TextDelta(index, text))

    def tell(self, *events: GenerationEvent) -> None:
        for event in events:
            self.generation.put(event)

    def finish(self, index: int = 0, reason: FinishReason = "stop", usage: Usage | None = None) -> None:
        self.generation.put(Finished(index, reason, usage or Usage(7, 2, 3), Timings(0.1, 0.2)))

    def answer(self, *texts: str) -> None:
        """A whole answer, one text a row."""
        self.accept()
        for index, text in enumerate(texts):
            self.say(text, index)
            self.finish(index)

    def fail(self, error: SquishError) -> None:
        self.generation.fail(error)


def scripted_runtime(settings: Settings) -> tuple[Runtime, ScriptedSessions]:
    runtime, sessions = Runtime(settings), ScriptedSessions()
    runtime.sessions = cast(SessionManager, sessions)
    return runtime, sessions


@asynccontextmanager
async def serving(
    runtime: Runtime, options: Options | None = None, stop: Shutdown | None = None, opening: Opening | None = None
) -> AsyncIterator[Address]:
    """The API on a free port, over a real socket, for as long as the block lasts. It then ends within half a second."""
    stop = stop or Shutdown(drain=0.5)
    ready: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(runtime, options or Options(), stop=stop, on_ready=ready.set_result, opening=opening)
    )
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        await task
    try:
        yield await ready
    finally:
        stop.gently.set()
        await task
