"""What happens to every request before its handler and after its answer: its id, CORS, and who may ask.

The rules are auth.py's and cors.py's; this module only puts them in order.
"""

from __future__ import annotations

import re
import secrets
from types import SimpleNamespace

from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config
from sanic.response import BaseHTTPResponse

from squish.api import auth, cors
from squish.api.errors import Response

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def install(app: Sanic[Config, SimpleNamespace]) -> None:
    """Middleware in the order in which it has to run: a preflight carries no key."""
    app.register_middleware(_identify, "request")
    app.register_middleware(_preflight, "request")
    app.register_middleware(_check, "request")
    app.register_middleware(_mark, "response")


async def _identify(request: Request) -> None:
    """The client's own X-Request-Id where it can stand in a header and a log line, else a new one."""
    given = request.headers.getone("x-request-id", None)
    request.ctx.id = given if given and _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(8)}"


async def _preflight(request: Request) -> HTTPResponse | None:
    if request.method != "OPTIONS":
        return None
    headers = cors.preflight_headers(
        request.app.ctx.options.cors_origins,
        request.headers.getone("origin", None),
        request.headers.getone("access-control-request-method", None),
        request.headers.getone("access-control-request-headers", None),
    )
    return Response(status=204, headers=headers) if headers else None


async def _check(request: Request) -> None:
    key, options = request.app.ctx.runtime.settings.api_key, request.app.ctx.options
    if key is None:
        host = request.headers.getone("host", None)
        auth.check_host(host, options.host)
        auth.check_origin(request.headers.getone("origin", None), host, options.cors_origins)
    auth.check_key(key, request.headers.getone("authorization", None), request.path)


async def _mark(request: Request, response: BaseHTTPResponse) -> None:
    response.headers["x-request-id"] = getattr(request.ctx, "id", "-")
    allowed = request.app.ctx.options.cors_origins
    response.headers.update(cors.answer_headers(allowed, request.headers.getone("origin", None)))
