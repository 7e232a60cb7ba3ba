"""What happens to every request before its handler and after its answer: its id, CORS, and access.

The rules are auth.py's and cors.py's; this module only puts them in order.
"""

from __future__ import annotations

import re
import secrets

from sanic import HTTPResponse, Request
from sanic.response import BaseHTTPResponse

from squish.api import dialects
from squish.api.access import auth, cors
from squish.api.transport.application import App
from squish.api.transport.request import AnyRequest
from squish.api.transport.response import Response

_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def install(app: App) -> None:
    """Middleware in the order in which it has to run: a preflight carries no key."""
    app.register_middleware(_identify, "request")
    app.register_middleware(_preflight, "request")
    app.register_middleware(_check, "request")
    app.register_middleware(_mark, "response")


async def _identify(request: Request) -> None:
    """The client's own X-Request-Id where it can stand in a header and a log line, else a new one; and the trace that
    the request belongs to (W3C traceparent), where it says so."""
    trace = _TRACE.fullmatch(request.headers.getone("traceparent", ""))
    request.ctx.trace = trace[1] if trace else None
    given = request.headers.getone("x-request-id", None)
    request.ctx.key = None
    request.ctx.id = given if given and _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(8)}"


async def _preflight(request: AnyRequest) -> HTTPResponse | None:
    """The answer to a browser's preflight request. Raises Refused (403), which says how it could."""
    asked = request.headers.getone("access-control-request-method", None)
    origin = request.headers.getone("origin", None)
    if request.method != "OPTIONS" or request.stands_in or asked is None or origin is None:
        return None
    headers = cors.preflight_headers(
        request.app.ctx.options.cors_origins, origin, request.headers.getone("access-control-request-headers", None)
    )
    if headers is None:
        raise auth.origin_refused(origin)
    return Response(status=204, headers=headers)


async def _check(request: AnyRequest) -> None:
    """Refuse who may not ask, and put down whose key it is."""
    options, clients = request.app.ctx.options, request.app.ctx.services.clients
    if not clients.need_keys:
        host = request.headers.getone("host", None)
        auth.check_host(host, options.host)
        auth.check_origin(request.headers.getone("origin", None), host, options.cors_origins)
        return
    given = request.headers.getone("authorization", None), request.headers.getone("x-api-key", None)
    request.ctx.key = clients.whose(auth.keys_in(*given))
    # Of a header without an end nobody knows whether it has a key.
    known = request.ctx.key is not None or request.path in auth.OPEN_PATHS
    if not known and (any(given) or request.head_ended):
        raise auth.no_key(*given)


async def _mark(request: Request, response: BaseHTTPResponse) -> None:
    id = getattr(request.ctx, "id", "-")
    id_header = dialects.spoken(request.path, request.headers).id_header
    response.headers["x-request-id"] = id
    if id_header:
        response.headers[id_header] = id
    allowed = request.app.ctx.options.cors_origins
    response.headers.update(cors.answer_headers(allowed, request.headers.getone("origin", None)))
