"""Runs one generation for an HTTP request and sends its reply, whole or as a stream.

Leaving a handler, for whatever reason, leaves the generation's block, and that cancels what still runs.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Self

import msgspec
from sanic import HTTPResponse, Request

from squish.api import stream
from squish.api.dialect import Asked, Row, RowEvent
from squish.api.errors import json_response
from squish.api.metrics import Metrics
from squish.engine import Generation
from squish.generation import Finished, GenerationEvent, ReasoningDelta, TextDelta, ToolCallDelta


async def answer(request: Request, asked: Asked) -> HTTPResponse | None:
    """The response to send, or None when it was streamed. Raises SquishError while no header is out."""
    context = request.app.ctx
    generation_request = msgspec.structs.replace(asked.generation, client=_asker(request))
    async with context.runtime.sessions.generate(generation_request) as generation:
        events = _Observed(generation, request, context.metrics, asked.rows_per_prompt)
        if asked.stream:
            await stream.send_stream(request, events, asked.reply, context.options.timing)
            return None
        rows = [Row() for _ in range(generation.rows)]
        async for event in events:
            if isinstance(event, RowEvent):
                rows[event.index].add(event)
    return json_response(asked.reply.whole(rows))


def _asker(request: Request) -> str:
    """The route and the other end's address, as whoever watches the server sees them."""
    info = request.conn_info
    address = f" {info.client_ip}" if info is not None and info.client_ip else ""
    return f"/{request.route.path}{address}" if request.route else address


class _Observed(AsyncIterator[GenerationEvent]):
    """The events of a generation, counted and timed on their way. A wait for the next one can be cancelled and tried
    again, as with the generation itself."""

    def __init__(self, generation: Generation, request: Request, metrics: Metrics, rows_per_prompt: int) -> None:
        self._generation = generation
        self._request = request
        self._metrics = metrics
        self._rows_per_prompt = rows_per_prompt
        self._model = generation.request.model
        self._started = time.perf_counter()
        self._ttft: float | None = None
        self._prompt = self._cached = self._completion = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GenerationEvent:
        event = await anext(self._generation)
        if isinstance(event, Finished):
            self._finished(event)
        elif self._ttft is None and isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta):
            self._ttft = time.perf_counter() - self._started
            self._metrics.first_token(self._model, self._ttft)
        return event

    def _finished(self, event: Finished) -> None:
        first_of_prompt = event.index % self._rows_per_prompt == 0
        self._metrics.finished(self._model, event, first_of_prompt)
        if first_of_prompt:
            self._prompt += event.usage.prompt_tokens
            self._cached += event.usage.cached_tokens
        self._completion += event.usage.completion_tokens
        ttft = "" if self._ttft is None else f" ttft={self._ttft * 1000:.0f}ms"
        self._request.ctx.note = (
            f" model={self._model} prompt={self._prompt} cached={self._cached} completion={self._completion}{ttft}"
        )
