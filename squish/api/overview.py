"""GET /squish/status and POST /squish/cancel/{id}: what a Squish that is connected to this server shows of it.

A client sees the requests that are its own. Who asks from this machine without a key, or with the server's one key,
sees all of them. No prompt and no answer is told.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
from sanic import HTTPResponse, Request

from squish import __version__
from squish.api.clients.clients import SINGLE
from squish.api.clients.keys import ApiKey
from squish.api.errors import Refused
from squish.api.operation import Operation
from squish.api.services import Services
from squish.api.transport.request import peer
from squish.api.transport.response import json_response
from squish.models.manifest import Manifest
from squish.sessions.activity import RequestStatus, Totals
from squish.sessions.model_status import ModelStatus
from squish.system.host import HOST
from squish.system.loopback import is_loopback


class OverviewModel(msgspec.Struct, frozen=True):
    """An installed model. size in bytes, context_length in tokens."""

    id: str
    kind: str
    size: int
    parameters: int
    context_length: int
    quantization: str
    architecture: str
    license: str
    base: str | None


class OverviewMemory(msgspec.Struct, frozen=True):
    """Of the machine, in bytes."""

    used: int
    total: int


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """installed: the models that can be asked; models: those in memory, or on their way. requests: the newest last."""

    version: str
    installed: list[OverviewModel]
    models: list[ModelStatus]
    requests: list[RequestStatus]
    totals: Totals
    memory: OverviewMemory
    can_change: bool


class Cancelled(msgspec.Struct, frozen=True):
    """id: of the request that was asked to end."""

    id: int


OPERATIONS = (
    Operation("GET", "/squish/status", "getOverview", "What `squish --connect` shows of this server.", Overview),
    Operation("POST", "/squish/cancel/{id}", "cancelRequest", "End a request that the status lists.", Cancelled),
)


async def get_overview(request: Request) -> HTTPResponse:
    services: Services = request.app.ctx.services
    runtime, key = services.runtime, request.ctx.key
    installed = await asyncio.to_thread(runtime.store.list)
    seen = [each for each in installed if services.clients.may_see(key, each.id)]
    ids = {each.id for each in seen}
    memory = HOST.memory()
    return json_response(
        Overview(
            version=__version__,
            installed=[_model(each) for each in seen],
            models=[_told(each) for each in runtime.sessions.status() if each.name in ids],
            requests=_requests(request),
            totals=runtime.sessions.totals(),
            memory=OverviewMemory(memory.total - memory.available, memory.total),
            can_change=services.options.allow_pull,
        )
    )


async def cancel_request(request: Request, id: str) -> HTTPResponse:
    """Raises Refused (404) for a request that is not there, or is another client's."""
    found = next((each for each in _requests(request) if str(each.id) == id), None)
    if found is None:
        raise Refused(404, "not_found", "No request has this id. GET /squish/status lists them.")
    services: Services = request.app.ctx.services
    services.runtime.sessions.cancel(found.id)
    return json_response(Cancelled(found.id))


def _requests(request: Request) -> list[RequestStatus]:
    services: Services = request.app.ctx.services
    activity = services.runtime.sessions.activity()
    key: ApiKey | None = request.ctx.key
    address = peer(request) or ""
    if key is not None:
        return activity if key.name == SINGLE else [each for each in activity if each.details.key == key.name]
    return activity if is_loopback(address) else [each for each in activity if each.client.endswith(f" {address}")]


def _told(status: ModelStatus) -> ModelStatus:
    """Elsewhere the number of a process means nothing, so what it takes is said."""
    return replace(status, pid=None, process_bytes=HOST.footprint(status.pid) or 0 if status.pid else 0)


def _model(manifest: Manifest) -> OverviewModel:
    return OverviewModel(
        manifest.id,
        manifest.kind,
        manifest.size,
        manifest.parameters,
        manifest.context_length,
        manifest.quantization,
        manifest.architecture,
        manifest.license or "",
        manifest.base,
    )
