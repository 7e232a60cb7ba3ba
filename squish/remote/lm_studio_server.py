"""LM Studio: beside OpenAI's API it lists its models with their kind, their context and whether they are in memory."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from squish.errors import RemoteError
from squish.format.embedding import ModelKind
from squish.models.manifest import Manifest
from squish.remote import fields
from squish.remote.connection import ServerConnection
from squish.remote.plain_server import PlainServer
from squish.remote.server import Listed, ServerState, guessed_kind, in_memory, manifests

_MODELS = "/api/v0/models"
_PROBE = 5.0  # seconds


class StudioModel(msgspec.Struct, frozen=True):
    """type: llm, vlm or embeddings. state: loaded or not-loaded. Contexts in tokens."""

    id: str
    type: str | None = None
    arch: str | None = None
    quantization: str | None = None
    state: str | None = None
    max_context_length: int | None = None
    loaded_context_length: int | None = None
    capabilities: list[str] | None = None

    @property
    def kind(self) -> ModelKind:
        if self.type is None:
            return guessed_kind(self.id)
        return "embedding" if self.type == "embeddings" else "chat"

    @property
    def context(self) -> int:
        return self.loaded_context_length or self.max_context_length or 0


class StudioModels(msgspec.Struct, frozen=True):
    data: list[StudioModel]


class LmStudioServer(PlainServer):
    """It loads what it is asked, and unloads it by itself."""

    def __init__(self, connection: ServerConnection) -> None:
        super().__init__(connection, "/v1", "LM Studio", fields.PLAIN)
        self._tools: frozenset[str] | None = None

    async def models(self) -> list[Manifest]:
        found = (await self._connection.get(_MODELS, StudioModels)).data
        # Earlier versions do not say what a model can do.
        says = any(each.capabilities is not None for each in found)
        self._tools = frozenset(each.id for each in found if "tool_use" in (each.capabilities or ())) if says else None
        return manifests(map(_listed, found), self._connection.name)

    async def state(self) -> ServerState:
        found = (await self._connection.get(_MODELS, StudioModels)).data
        return ServerState(
            tuple(replace(in_memory(each.id, each.context, unloads_in=None), pinned=False)
                  for each in found if each.state == "loaded")
        )  # fmt: skip

    async def calls_tools(self, model: str) -> bool:
        return self._tools is None or model in self._tools


async def is_lm_studio(connection: ServerConnection) -> bool:
    try:
        await connection.get(_MODELS, StudioModels, seconds=_PROBE)
    except RemoteError:
        return False
    return True


def _listed(model: StudioModel) -> Listed:
    return Listed(
        model.id,
        context=model.context,
        quantization=model.quantization or "",
        architecture=model.arch or "",
        kind=model.kind,
    )
