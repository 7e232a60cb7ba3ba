"""Runs one generation for an HTTP request and sends its reply, whole or as a stream.

Leaving a handler, for whatever reason, leaves the generation's block, and that cancels what still runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from sanic import HTTPResponse, Request

from squish.api import sse
from squish.api.errors import json_response
from squish.api.openai import CommonRequest
from squish.api.replies import Reply, Row
from squish.generation import Finished, GenerationEvent, GenerationRequest, TextDelta


async def answer(
    request: Request, asked: CommonRequest, generation_request: GenerationRequest, reply: Reply
) -> HTTPResponse | None:
    """The response to send, or None when it was streamed. Raises SquishError while no header is out."""
    sessions, timing = request.app.ctx.runtime.sessions, request.app.ctx.timing
    async with sessions.generate(generation_request) as generation:
        if asked.stream:
            await sse.send_stream(request, generation, reply, asked.wants_usage_chunk, timing)
            return None
        rows = await _collect(generation, len(generation_request.prompts))
    return json_response(reply.whole(rows))


async def _collect(events: AsyncIterator[GenerationEvent], count: int) -> list[Row]:
    rows = [Row() for _ in range(count)]
    async for event in events:
        if isinstance(event, TextDelta | Finished):
            rows[event.index].add(event)
    return rows
