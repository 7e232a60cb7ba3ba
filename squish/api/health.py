"""GET /health: the server answers. It asks neither the store nor an engine, so it answers while a model loads."""

from __future__ import annotations

import msgspec
from sanic import HTTPResponse, Request

from squish.api.transport.response import json_response


class Health(msgspec.Struct, frozen=True):
    status: str = "ok"


async def get_health(request: Request) -> HTTPResponse:
    return json_response(Health())
