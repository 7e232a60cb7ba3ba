"""Server-sent events: one generation as a stream of `data:` lines.

Errors that come soon are raised, so that they can still be JSON with a status. Once the headers are out, comments keep
proxies from giving up, and a failure is one last `data: {"error": …}`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from sanic import Request

from squish import generation as gen
from squish.api.errors import Response, report, to_failure
from squish.api.replies import Reply
from squish.engine import Generation

DONE = b"data: [DONE]\n\n"

Send = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. grace: in which an error of the engine still gets a status of its own, long enough for a small model to
    load; comments: silence after which one is sent. Proxies give up after 30 at the earliest."""

    grace: float = 10.0
    comments: float = 10.0


async def send_stream(
    request: Request, generation: Generation, reply: Reply, usage_chunk: bool, timing: Timing
) -> None:
    """Answer a request with a stream. Raises SquishError only while no header is out."""
    first = await _first_answer(generation, timing.grace)
    response = await request.respond(
        Response(
            content_type="text/event-stream; charset=utf-8",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
    )
    try:
        await response.send(_comment(first))
        usage = await _send_events(response.send, generation, reply, first, timing.comments)
        if usage_chunk:
            await response.send(_data(reply.last(usage)))
        await response.send(DONE)
    except Exception as error:  # noqa: BLE001  (with the headers out, this is the last place that can tell the client)
        report(error, request.ctx.id)
        await response.send(_data(to_failure(error).body))
    await response.eof()


async def _first_answer(generation: Generation, grace: float) -> gen.GenerationEvent | None:
    """The engine's acceptance, or the last news before the grace was over."""
    event: gen.GenerationEvent | None = None
    try:
        async with asyncio.timeout(grace):
            while not isinstance(event, gen.Accepted):
                event = await anext(generation)
    except (TimeoutError, StopAsyncIteration):
        pass
    return event


async def _send_events(
    send: Send, generation: Generation, reply: Reply, event: gen.GenerationEvent | None, silence: float
) -> list[gen.Usage]:
    """Send what the generation says, beginning with an event that is here already. The usage of its rows, in order."""
    usage: dict[int, gen.Usage] = {}
    loop = asyncio.get_running_loop()
    upcoming, sent_at = event, loop.time()
    while True:
        if upcoming is not None:
            event = upcoming
            if isinstance(event, gen.Finished):
                usage[event.index] = event.usage
            if chunks := reply.chunks(event):
                await send(b"".join(map(_data, chunks)))
                sent_at = loop.time()
        try:
            async with asyncio.timeout_at(sent_at + silence):
                upcoming = await anext(generation)
        except StopAsyncIteration:
            return [usage[index] for index in sorted(usage)]
        except TimeoutError:
            upcoming = None
            await send(_comment(event))
            sent_at = loop.time()


def _data(value: msgspec.Struct) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _comment(event: gen.GenerationEvent | None) -> bytes:
    """A line that clients skip, with what is going on for whoever reads the stream by eye."""
    match event:
        case gen.Queued(position=position):
            return b": queued, position %d\n\n" % position
        case gen.Loading():
            return b": loading the model\n\n"
        case gen.Prefill(done=done, total=total):
            return b": reading the prompt, %d of %d tokens\n\n" % (done, total)
        case _:
            return b": working\n\n"
