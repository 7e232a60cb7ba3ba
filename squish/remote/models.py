"""The models of a server, as they were listed last."""

from __future__ import annotations

import builtins
from collections.abc import Callable

from squish.errors import ModelNotFound
from squish.models.manifest import Manifest
from squish.remote.server import ModelServer

_SHOWN = 8  # names in a hint
_LATEST = ":latest"  # what Ollama writes behind a name that has no tag

_MEANINGS: tuple[Callable[[str], str], ...] = (
    lambda id: id.removesuffix(_LATEST),
    lambda id: id.partition(":")[0],
    lambda id: id.rpartition("/")[2],  # servers that were given a file or a folder name all of its path
    lambda id: id.rpartition("/")[2].removesuffix(".gguf"),
)


class RemoteModels:
    """name: the server for people."""

    def __init__(self, server: ModelServer, name: str) -> None:
        self._server, self._name = server, name
        self._known: dict[str, Manifest] = {}

    def list(self) -> builtins.list[Manifest]:
        return [*self._known.values()]

    def has(self, id: str) -> bool:
        return id in self._known

    def manifest(self, name: str) -> Manifest:
        """Raises ModelNotFound with the names that there are."""
        if name in self._known:
            return self._known[name]
        raise ModelNotFound(f"{self._name} has no model {name[:80]!r}.", hint=self._names(), param="model")

    def find(self, name: str) -> Manifest:
        """The model that somebody means who writes a name: one without its tag or folder, or in other letters, counts
        where there is one such model. Raises ModelNotFound with the names that there are."""
        wanted = name.lower().removesuffix(_LATEST)
        for means in () if name in self._known else _MEANINGS:
            found = [id for id in self._known if means(id.lower()) == wanted]
            if len(found) == 1:
                return self._known[found[0]]
        return self.manifest(name)

    async def read(self) -> None:
        """Ask the server. Raises RemoteError."""
        self._known = {each.id: each for each in await self._server.models()}

    def _names(self) -> str:
        names = [*self._known]
        if not names:
            return "It has none: install one where it runs."
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"It has {', '.join(names[:_SHOWN])}{more}."
