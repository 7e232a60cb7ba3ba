"""One generation as a stream: server-sent events, or whatever its reply is framed in.

Errors that come soon are raised, so that they can still be JSON with a status. Once the headers are out, comments keep
proxies from giving up, and a failure is one last piece with the error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from sanic import Request

from squish import generation as gen
from squish.api.dialect import Reply, Row
from squish.api.errors import Response, report, to_failure
from squish.api.options import Timing

Events = AsyncIterator[gen.GenerationEvent]
Send = Callable[[bytes], Awaitable[None]]


async def send_stream(request: Request, events: Events, reply: Reply, timing: Timing) -> None:
    """Answer a request with a stream. Raises SquishError only while no header is out."""
    frames = reply.frames
    first = await _first_answer(events, timing.grace)
    response = await request.respond(
        Response(
            content_type=frames.content_type,
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
    )
    try:
        await response.send(frames.comment(_news(first)))
        rows = await _send_events(response.send, events, reply, first, timing.comments)
        await response.send(b"".join(map(frames.data, reply.last(rows))) + frames.end)
    except Exception as error:  # noqa: BLE001  (with the headers out, this is the last place that can tell the client)
        report(error, request.ctx.id)
        await response.send(frames.data(to_failure(error).body))
    await response.eof()


async def _first_answer(events: Events, grace: float) -> gen.GenerationEvent | None:
    """The engine's acceptance, or the last news before the grace was over."""
    event: gen.GenerationEvent | None = None
    try:
        async with asyncio.timeout(grace):
            while not isinstance(event, gen.Accepted):
                event = await anext(events)
    except (TimeoutError, StopAsyncIteration):
        pass
    return event


async def _send_events(
    send: Send, events: Events, reply: Reply, event: gen.GenerationEvent | None, silence: float
) -> list[Row]:
    """Send what the generation says, beginning with an event that is here already. Its rows, in order.

    Only what `last` can use is kept of them: of the text a stream keeps nothing.
    """
    rows: dict[int, Row] = {}
    loop = asyncio.get_running_loop()
    upcoming, sent_at = event, loop.time()
    while True:
        if upcoming is not None:
            event = upcoming
            if isinstance(event, gen.Finished):
                rows.setdefault(event.index, Row()).add(event)
            if chunks := reply.chunks(event):
                await send(b"".join(map(reply.frames.data, chunks)))
                sent_at = loop.time()
        try:
            async with asyncio.timeout_at(sent_at + silence):
                upcoming = await anext(events)
        except StopAsyncIteration:
            return [rows[index] for index in sorted(rows)]
        except TimeoutError:
            upcoming = None
            await send(reply.frames.comment(_news(event)))
            sent_at = loop.time()


def _news(event: gen.GenerationEvent | None) -> str:
    """What is going on, for whoever reads the stream by eye."""
    match event:
        case gen.Queued(position=position):
            return f"queued, position {position}"
        case gen.Loading():
            return "loading the model"
        case gen.Prefill(done=done, total=total):
            return f"reading the prompt, {done} of {total} tokens"
        case _:
            return "working"
