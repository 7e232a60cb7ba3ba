"""GET /health: the server answers. GET /ready: a model can answer, so a router may send requests here.

Neither asks the store or an engine, so they answer while a model loads.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from sanic import HTTPResponse, Request

from squish.api.services import Services
from squish.api.transport.response import json_response


class Health(msgspec.Struct, frozen=True):
    status: str = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """With 200 ready; with 503 loading what the server was started with, or stopping."""

    status: Literal["ready", "loading", "stopping"]


async def get_health(request: Request) -> HTTPResponse:
    return json_response(Health())


async def get_ready(request: Request) -> HTTPResponse:
    services: Services = request.app.ctx.services
    if services.ending.begun:
        return json_response(Readiness("stopping"), 503)
    if not services.opening.is_open:
        return json_response(Readiness("loading"), 503)
    return json_response(Readiness("ready"))
