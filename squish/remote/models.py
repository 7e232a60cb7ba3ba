"""The models of a server, as they were listed last."""

from __future__ import annotations

import builtins

from squish.errors import ModelNotFound
from squish.models.manifest import Manifest
from squish.remote.server import ModelServer


class RemoteModels:
    """name: the server for people."""

    def __init__(self, server: ModelServer, name: str) -> None:
        self._server, self._name = server, name
        self._known: dict[str, Manifest] = {}

    def list(self) -> builtins.list[Manifest]:
        return [*self._known.values()]

    def manifest(self, name: str) -> Manifest:
        """Raises ModelNotFound."""
        if name in self._known:
            return self._known[name]
        raise ModelNotFound(f"{self._name} has no model {name[:80]!r}.", param="model")

    async def read(self) -> None:
        """Ask the server. Raises RemoteError."""
        self._known = {each.id: each for each in await self._server.models()}
