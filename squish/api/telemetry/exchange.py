"""The span of one request over HTTP: begun with its header, finished and sent when its answer is out.

Requests that post something have one: those that ask for answers or vectors, and those that are refused. What is asked
for every few seconds (`/health`, `/metrics`) has none.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from sanic import Request

from squish.api.telemetry.span import Attribute, RequestSpan, shown
from squish.api.transport.request import peer

_CONTEXT = ("traceparent", "tracestate")


def begin(request: Request) -> RequestSpan | None:
    """None where nothing is traced."""
    if request.app.ctx.services.collector is None or request.method != "POST":
        return None
    return RequestSpan("POST", {name: text for name in _CONTEXT if (text := request.headers.getone(name, None))})


def end(request: Request, span: RequestSpan, route: str, status: int) -> None:
    """Say how it ended, and put it on its way. route: with the names of its variable parts; status: that was sent."""
    if "gen_ai.operation.name" not in span.attributes:
        span.name = f"POST {route}"
    span.attributes |= _described(request, route) | {"http.response.status_code": status}
    broken = getattr(request.ctx, "broken", None)
    if code := broken or getattr(request.ctx, "failure", None):
        span.failure = code  # as the client was told
    elif status >= 400:
        span.failed(str(status))
    span.broken = status >= 500 or broken is not None
    span.finish()
    request.app.ctx.services.collector.send(span)


def _described(request: Request, route: str) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {
        "http.request.method": "POST",
        "http.route": route,
        "url.scheme": "http",
        "url.path": shown(request.path),
        "client.address": peer(request) or "",
        "squish.request.id": getattr(request.ctx, "id", ""),
    } | _server(request.headers.getone("host", ""))
    if key := getattr(request.ctx, "key", None):
        found["squish.key.name"] = key.name
    return found


def _server(host: str) -> dict[str, Attribute]:
    """By what name the client knows this server."""
    try:
        parts = urlsplit(f"http://{host}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return {}
    if not name:
        return {}
    return {"server.address": shown(name), "server.port": port or 80}
