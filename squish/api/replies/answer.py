"""Runs one generation for an HTTP request and sends its reply, whole or as a stream.

Leaving a handler, for whatever reason, leaves the generation's block, and that cancels what still runs.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Self

import msgspec
from sanic import HTTPResponse, Request

from squish.api.access.machine import machine
from squish.api.clients.keys import ApiKey
from squish.api.dialect import Asked, Row, RowEvent
from squish.api.errors import Refused, to_failure
from squish.api.metrics import Metrics
from squish.api.replies import stream
from squish.api.telemetry.span import RequestSpan
from squish.api.transport.request import own, peer
from squish.api.transport.response import json_response
from squish.errors import SquishError
from squish.generation import (
    PURPOSE,
    TITLE,
    Accepted,
    Finished,
    GenerationEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from squish.sessions.answer import Generation
from squish.sessions.manager import SessionManager
from squish.text import clean

_CANCELLED = "The request was cancelled at the server before its answer was complete."

_LONGEST_NOTE = 200


async def answer(request: Request, asked: Asked) -> HTTPResponse | None:
    """The response to send, or None when it was streamed.

    Raises SquishError and Refused while no header is out.
    """
    try:
        return await _answer(request, asked)
    except SquishError as error:
        if not asked.stream or error.code not in asked.told_in_stream:
            raise
        await stream.send_failure(request, asked.reply, error)
        return None


async def _answer(request: Request, asked: Asked) -> HTTPResponse | None:
    context = request.app.ctx
    sessions: SessionManager = context.runtime.sessions
    key: ApiKey | None = request.ctx.key
    wanted = msgspec.structs.replace(
        asked.generation,
        client=asker(request),
        account=account(request),
        background=_is_title(request) or (key is not None and key.background),
    )
    span: RequestSpan | None = request.ctx.span
    if span:
        span.asks(wanted, asked.stream)
    counts = _Counts(request, context.metrics, asked, span)
    async with context.services.asking(wanted.model, key), sessions.generate(wanted, counts) as generation:
        counts.model = generation.request.model
        if span:
            span.answers(generation.request.model)
        events = _Observed(generation, request, context.metrics, asked)
        if asked.stream:
            loading = partial(_is_loading, sessions, generation.request.model)
            await stream.send_stream(request, events, asked.reply, context.options.timing, loading)
            return None
        rows = [Row() for _ in range(generation.rows)]
        async for event in events:
            if isinstance(event, RowEvent):
                rows[event.index].add(event)
    return json_response(asked.reply.whole(rows))


def _is_loading(sessions: SessionManager, model: str) -> bool:
    return any(status.serves(model) and status.state == "loading" for status in sessions.status())


def asker(request: Request) -> str:
    """The route and the other end's address, as people who watch the server see them."""
    info = request.conn_info
    address = f" {info.client_ip}" if info is not None and info.client_ip else ""
    if _is_title(request):
        return f"{TITLE}{address}"
    return f"/{request.route.path}{address}" if request.route else address


def _is_title(request: Request) -> bool:
    """Whether another Squish asks for the title of a chat, which nobody waits for."""
    header, purpose = PURPOSE
    return bool(request.headers.get(header) == purpose)


def account(request: Request) -> str:
    """Who takes turns with others: a key, or where none is needed the machine at the other end."""
    key: ApiKey | None = request.ctx.key
    return key.name if key is not None else machine(peer(request) or "", own(request) or "")


class _Counts:
    """Counts what a request takes, also of an answer whose reader has gone. model: the installed id."""

    def __init__(self, request: Request, metrics: Metrics, asked: Asked, span: RequestSpan | None) -> None:
        self.model = asked.generation.model
        self._request, self._metrics, self._span = request, metrics, span
        self._rows_per_prompt = asked.rows_per_prompt

    def see(self, event: GenerationEvent) -> None:
        if self._span:
            self._span.see(event)
        if not isinstance(event, Finished) or (event.reason == "cancelled" and not event.usage.prompt_tokens):
            return  # the second was cancelled before the worker had it
        first_of_prompt, usage = event.index % self._rows_per_prompt == 0, event.usage
        self._metrics.finished(self.model, event, first_of_prompt)
        if first_of_prompt:
            self._count(prompt=usage.prompt_tokens, cached=usage.cached_tokens)
        self._count(requests=event.index == 0, completion=usage.completion_tokens)

    def fail(self, error: SquishError) -> None:
        if self._span:
            self._span.fail(error)

    def _count(self, **amounts: int) -> None:
        context = self._request.ctx
        self._request.app.ctx.services.clients.used(context.key, self.model, **amounts)


class _Observed(AsyncIterator[GenerationEvent]):
    """The events of a generation, timed on their way and noted for the log. A wait for the next can be cancelled and
    tried again, as with the generation itself."""

    def __init__(self, generation: Generation, request: Request, metrics: Metrics, asked: Asked) -> None:
        self._generation = generation
        self._request = request
        self._metrics = metrics
        self._rows_per_prompt = asked.rows_per_prompt
        self._model = generation.request.model
        self._started = time.perf_counter()
        self._ttft: float | None = None
        self._prompt = self._cached = self._completion = 0
        self._not_held = ""
        self._left_out = _listed("left_out", asked.left_out)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GenerationEvent:
        try:
            event = await anext(self._generation)
        except SquishError as error:
            if to_failure(error).status >= 500:
                self._metrics.failed(self._model, error.code)
            raise
        if isinstance(event, Finished):
            self._finished(event)
            if event.reason == "cancelled":  # not by the client, who would not read this
                raise Refused(503, "request_cancelled", _CANCELLED, {"x-should-retry": "false"})
        elif isinstance(event, Accepted):
            self._not_held = _listed("not_held", event.not_held)
        elif self._ttft is None and isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta):
            self._ttft = time.perf_counter() - self._started
            self._metrics.first_token(self._model, self._ttft)
        return event

    def _finished(self, event: Finished) -> None:
        first_of_prompt = event.index % self._rows_per_prompt == 0
        if first_of_prompt:
            self._prompt += event.usage.prompt_tokens
            self._cached += event.usage.cached_tokens
        self._completion += event.usage.completion_tokens
        ttft = "" if self._ttft is None else f" ttft={event.timings.ttft * 1000:.0f}ms"  # the figure of every door
        self._request.ctx.note = (
            f" model={self._model} prompt={self._prompt} cached={self._cached} completion={self._completion}{ttft}"
            f"{self._not_held}{self._left_out}"
        )


def _listed(word: str, names: Sequence[str]) -> str:
    """For the log: where an answer is not held to its schema, or what it does without. The names are the client's."""
    shown = clean(",".join(names))[:_LONGEST_NOTE]
    return f" {word}={''.join(shown.split())}" if shown else ""
