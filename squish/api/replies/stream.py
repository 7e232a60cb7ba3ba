"""One generation as a stream, or a progress: server-sent events, or whatever it is framed in.

Errors that come soon are raised, so that they can still be JSON with a status. Once the headers are out, comments keep
proxies from giving up, and a failure is one last piece with the error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from sanic import Request

from squish import generation as gen
from squish.api.dialect import Failed, Frames, Pieces, Reply, Row
from squish.api.errors import report, to_failure
from squish.api.services import Services
from squish.api.serving.options import Timing
from squish.api.transport.response import Response
from squish.errors import SquishError

Events = AsyncIterator[gen.GenerationEvent]
Send = Callable[[bytes], Awaitable[None]]

_LOOK = 0.5  # seconds between looks at whether a model is still loading


async def send_stream(
    request: Request, events: Events, reply: Reply, timing: Timing, loading: Callable[[], bool]
) -> None:
    """Answer a request with a stream. loading: whether its model is on its way into memory.

    Raises SquishError only while no header is out.
    """
    frames = reply.frames
    first = await _first_answer(events, timing, loading)

    async def fill(send: Send) -> None:
        await send(frames.comment(_news(first)))
        rows = await _send_events(send, events, reply, first, timing.comments)
        await send(b"".join(map(frames.data, reply.last(rows))) + frames.end)

    await _send(request, frames, fill, reply.failed)


async def send_failure(request: Request, reply: Reply, error: SquishError) -> None:
    """Answer a request with a stream that says only why there is no answer."""

    async def fill(send: Send) -> None:
        raise error

    await _send(request, reply.frames, fill, reply.failed)


async def send_pieces(request: Request, pieces: Pieces) -> None:
    """Answer a request with what comes bit by bit. Raises only while no header is out."""
    frames = pieces.frames
    async with aclosing(pieces.items) as items:  # a client that leaves ends what is made for it
        first = await anext(items, None)

        async def fill(send: Send) -> None:
            if first is not None:
                await send(frames.data(first))
            async for item in items:
                await send(frames.data(item))
            await send(frames.end)

        await _send(request, frames, fill, pieces.failed)


async def _send(
    request: Request,
    frames: Frames,
    fill: Callable[[Send], Awaitable[None]],
    failed: Failed,
) -> None:
    """Send a header, then what `fill` sends, and what is said when that fails."""
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    response = await request.respond(Response(content_type=frames.content_type, headers=headers))
    services: Services = request.app.ctx.services
    try:
        async with services.ending.may_end():
            await fill(response.send)
    except Exception as error:  # noqa: BLE001  (with the headers out, this is the last place that can tell the client)
        report(error, request.ctx.id)
        failure = to_failure(error)
        request.ctx.broken = failure.code
        await response.send(b"".join(map(frames.data, failed(failure, request.ctx.id))))
    await response.eof()


async def _first_answer(events: Events, timing: Timing, loading: Callable[[], bool]) -> gen.GenerationEvent | None:
    """The engine's acceptance, or the last news before the grace was over, which begins when the model is loaded."""
    event: gen.GenerationEvent | None = None
    now = asyncio.get_running_loop().time
    latest = now() + timing.loading
    end = now() + timing.grace
    while not isinstance(event, gen.Accepted):
        if held := loading() and now() < latest:
            end = now() + timing.grace
        elif now() >= end:
            break
        look = now() + _LOOK
        try:
            async with asyncio.timeout_at(look if held else min(look, end)):
                event = await anext(events)
        except StopAsyncIteration:
            break
        except TimeoutError:
            continue
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
            news = reply.alive(event)
            await send(b"".join(map(reply.frames.data, news)) or reply.frames.comment(_news(event)))
            sent_at = loop.time()


def _news(event: gen.GenerationEvent | None) -> str:
    """What is going on, for people who read the stream."""
    match event:
        case gen.Queued(position=position):
            return f"queued, position {position}"
        case gen.Loading():
            return "loading the model"
        case gen.Preparing() | gen.Accepted():
            return "preparing the prompt"
        case gen.Prefill(done=done, total=total):
            return f"prefill, {done} of {total} tokens"
        case _:
            return "working"
