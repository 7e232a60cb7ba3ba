"""GET /v1/models and /v1/models/{id}: what is installed. An id can contain a slash."""

from __future__ import annotations

from urllib.parse import unquote

import msgspec
from sanic import HTTPResponse, Request

from squish.api.errors import json_response
from squish.store import Manifest


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """created: Unix time of the installation."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "squish"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "list"
    data: list[Model]


async def list_models(request: Request) -> HTTPResponse:
    manifests = request.app.ctx.runtime.store.list()
    return json_response(ModelList(data=[_model(manifest) for manifest in manifests]))


async def get_model(request: Request, name: str) -> HTTPResponse:
    return json_response(_model(request.app.ctx.runtime.store.find(unquote(name)).manifest))


def _model(manifest: Manifest) -> Model:
    return Model(id=manifest.id, created=manifest.created)
