"""What is kept of a request when it is over: one line in the access log and a count. No prompt, no query, no header."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sanic import Request

from squish.api.telemetry import exchange
from squish.api.transport.request import answered_status, peer
from squish.text import clean

access_logger = logging.getLogger("squish.access")

CLIENT_CLOSED = 499  # nginx's number for a client that did not wait; it only ever stands in the log and the counts

_PARAMETER = re.compile(r"<(?:__)?(\w+)(?::[^>]*)?>")
_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")


@contextmanager
def recorded(request: Request) -> Iterator[None]:
    """Record the request at the end of the block, however it ends."""
    request.ctx.recorded = True
    request.ctx.span = exchange.begin(request)
    started = time.perf_counter()
    status = CLIENT_CLOSED
    try:
        yield
        status = answered_status(request)
    finally:
        _record(request, status, time.perf_counter() - started)
        if request.ctx.span is not None:
            exchange.end(request, request.ctx.span, _route(request), status)


def record_unroutable(request: Request, status: int) -> None:
    """Record what never became a request; nothing for a request that is recorded when it is over."""
    if not getattr(request.ctx, "recorded", False):
        _record(request, status, 0.0)


def _record(request: Request, status: int, seconds: float) -> None:
    method = request.method if request.method in _METHODS else "other"
    request.app.ctx.metrics.request(method, _route(request), status)
    line = clean(f"{peer(request) or '-'} {request.method[:16]} {request.path[:200]}")
    line = line.replace("\n", " ").replace("\t", " ")
    id, note = getattr(request.ctx, "id", "-"), getattr(request.ctx, "note", "")
    if key := getattr(request.ctx, "key", None):
        note = f" key={key.name}{note}"
    if trace := getattr(request.ctx, "trace", None):
        note += f" trace={trace}"
    if broken := getattr(request.ctx, "broken", None):
        note += f" error={broken}"
    access_logger.info("%s %d %.0f ms %s%s", line, status, seconds * 1000, id, note)


def _route(request: Request) -> str:
    """With the names of its variable parts, so that there are as many as in the document."""
    return _PARAMETER.sub(r"{\1}", f"/{request.route.path}") if request.route else "other"
