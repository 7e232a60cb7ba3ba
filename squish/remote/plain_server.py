"""A server of OpenAI's API that says which models it has, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from squish.generation import Prompt
from squish.models.manifest import Manifest
from squish.remote.connection import ServerConnection
from squish.remote.fields import ON_SERVER, Fields
from squish.remote.server import Listed, ServerState, guessed_kind, manifests, served
from squish.remote.wire import ModelEntries, ModelEntry
from squish.sessions.backend import Offers

NOTHING = Offers(load=False, unload=False, pin=False, delete=False, preload=False, cancel=False, no_kv_bits=ON_SERVER)


class PlainServer:
    """root: what its paths begin with, mostly `/v1`."""

    def __init__(self, connection: ServerConnection, root: str, program: str, fields: Fields) -> None:
        self.program, self.fields, self.offers = program, fields, NOTHING
        self.chat = f"{root}/chat/completions"
        self._connection, self._root = connection, root
        self._listed: tuple[ModelEntry, ...] = ()

    async def models(self) -> list[Manifest]:
        return self._read((await self._connection.get(f"{self._root}/models", ModelEntries)).data or ())

    def _read(self, entries: Iterable[ModelEntry]) -> list[Manifest]:
        self._listed = tuple(entries)
        return manifests(map(listed, self._listed), self._connection.name)

    async def state(self) -> ServerState:
        """It does not say; that it still answers is asked by its list."""
        return ServerState(tuple(served(each.id, listed(each).context) for each in self._listed))

    async def count(self, model: str, prompts: tuple[Prompt, ...]) -> tuple[int, ...] | None:
        return None

    async def calls_tools(self, model: str) -> bool:
        return True

    async def load(self, model: str) -> None:
        """It loads what it is asked."""

    async def unload(self, model: str) -> None:
        """It offers no way."""

    async def pin(self, model: str, pinned: bool) -> None:
        """It offers no way."""

    async def remove(self, model: str) -> None:
        """It offers no way."""

    async def cancel(self, request: int) -> None:
        """It knows no requests."""


def listed(entry: ModelEntry) -> Listed:
    """What a server's list says of a model, under the names that servers have for it."""
    meta = entry.meta
    context = entry.max_model_len or entry.context_length or (meta and (meta.n_ctx or meta.n_ctx_train)) or 0
    return Listed(
        entry.id,
        size=(meta and meta.size) or 0,
        parameters=(meta and meta.n_params) or 0,
        context=context,
        kind=guessed_kind(entry.id),
    )
