"""GET /v1/models and /v1/models/{id}: what is installed. An id can contain a slash."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import msgspec
from sanic import HTTPResponse, Request

from squish.api.anthropic import models as anthropic
from squish.api.clients.clients import Clients
from squish.api.transport.response import json_response
from squish.errors import InvalidName, ModelNotFound
from squish.models.store import Manifest
from squish.names import LocalPath, parse
from squish.text import clean


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """created: Unix time of the installation."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "squish"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "list"
    data: list[Model]


def check_model(name: str) -> None:
    """Raise ModelNotFound for what cannot be an installed model: a client over HTTP has no files on this machine."""
    try:
        if not isinstance(parse(name), LocalPath):
            return
    except InvalidName:
        pass
    shown = clean(name[:80]).strip()
    raise ModelNotFound(
        f"The model {shown!r} is not installed.", hint="GET /v1/models lists the installed models.", param="model"
    )


@contextmanager
def pull_first(name: str) -> Iterator[None]:
    """Around a lookup of an installed model: when it is missing, the advice is to pull it, always."""
    try:
        yield
    except ModelNotFound as error:
        hint = error.hint or ""
        if "squish pull" not in hint:
            hint = f"Run: squish pull {name}. {hint}".strip()
        raise ModelNotFound(error.message, hint=hint, param="model") from None


async def list_models(request: Request) -> HTTPResponse:
    # A file a model is read, and no other request is to wait for a slow disk.
    installed = await asyncio.to_thread(request.app.ctx.runtime.store.list)
    clients: Clients = request.app.ctx.services.clients
    manifests = [each for each in installed if clients.may_see(request.ctx.key, each.id)]
    if anthropic.HEADER in request.headers:
        return json_response(anthropic.model_page(manifests))
    return json_response(ModelList(data=[_model(manifest) for manifest in manifests]))


async def get_model(request: Request, id: str) -> HTTPResponse:
    name = unquote(id)
    if not name:  # /v1/models/ with a slash at its end
        return await list_models(request)
    check_model(name)
    clients: Clients = request.app.ctx.services.clients
    clients.check_model(request.ctx.key, name)
    with pull_first(name):
        manifest = request.app.ctx.runtime.store.find(name).manifest
    return json_response(anthropic.model_info(manifest) if anthropic.HEADER in request.headers else _model(manifest))


def _model(manifest: Manifest) -> Model:
    return Model(id=manifest.id, created=manifest.created)
