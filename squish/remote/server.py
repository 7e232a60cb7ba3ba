"""What is asked of a server of models, whatever kind it is, and the values that come back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from squish.format.embedding import ModelKind
from squish.generation import Prompt
from squish.models.manifest import Manifest, StoredFile
from squish.remote.fields import Fields
from squish.sessions.activity import RequestStatus, Totals
from squish.sessions.backend import Offers
from squish.sessions.model_status import ModelStatus
from squish.text import clean

_LONGEST_ID = 256
_MOST_MODELS = 5000
_EMBEDS = re.compile(r"(?<![a-z])embed(?:s|der|dings?)?(?![a-z])")


@dataclass(frozen=True, slots=True)
class ServerMemory:
    """Of the server's machine, in bytes."""

    used: int
    total: int


@dataclass(frozen=True, slots=True)
class ServerState:
    """models: those that are in memory, or on their way. requests, totals, memory: None where it does not say."""

    models: tuple[ModelStatus, ...]
    requests: tuple[RequestStatus, ...] | None = None
    totals: Totals | None = None
    memory: ServerMemory | None = None


class ModelServer(Protocol):
    """One kind of server. Every method raises RemoteError.

    program: what it is, for people. fields: how it wants requests. chat: the path at which it answers.
    """

    program: str
    fields: Fields
    offers: Offers
    chat: str

    async def models(self) -> list[Manifest]:
        """The models that it lists."""

    async def state(self) -> ServerState:
        """What goes on there."""

    async def load(self, model: str) -> None: ...

    async def unload(self, model: str) -> None: ...

    async def pin(self, model: str, pinned: bool) -> None: ...

    async def remove(self, model: str) -> None: ...

    async def cancel(self, request: int) -> None: ...

    async def count(self, model: str, prompts: tuple[Prompt, ...]) -> tuple[int, ...] | None: ...

    async def calls_tools(self, model: str) -> bool:
        """Whether a model can call tools; true where nobody knows."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A model as a server lists it. Sizes in bytes, 0 and empty where it does not say."""

    id: str
    size: int = 0
    parameters: int = 0
    context: int = 0
    quantization: str = ""
    architecture: str = ""
    license: str = ""
    kind: ModelKind = "chat"


def guessed_kind(id: str) -> ModelKind:
    """What a model is for by its name, where the server does not say: `text-embedding-3-small`, `nomic-embed-text`."""
    return "embedding" if _EMBEDS.search(id.lower()) else "chat"


def manifests(found: Iterable[Listed], server: str) -> list[Manifest]:
    """What is shown of the models; a name that could not be shown as it is sent is left out, and so is a second one."""
    return list({each.id: each for each in _usable(found, server)}.values())[:_MOST_MODELS]


def _usable(found: Iterable[Listed], server: str) -> Iterator[Manifest]:
    for each in found:
        if not each.id or len(each.id) > _LONGEST_ID or clean(each.id) != each.id or "\n" in each.id:
            continue
        yield Manifest(
            id=each.id,
            source=f"server:{server}",
            revision=None,
            architecture=clean(each.architecture)[:80],
            quantization=clean(each.quantization)[:80],
            parameters=_bounded(each.parameters),
            context_length=_bounded(each.context),
            license=clean(each.license)[:80],
            installed_at=datetime.fromtimestamp(0, UTC),
            files=(StoredFile("model", _bounded(each.size), ""),) if each.size > 0 else (),
            kind=each.kind,
        )


def _bounded(value: int) -> int:
    return min(max(value, 0), (1 << 63) - 1)


def in_memory(id: str, context: int = 0, memory: int = 0, *, unloads_in: float | None) -> ModelStatus:
    """A model that answers at once. memory: bytes that it takes with all that belongs to it, 0 where the server does
    not say. unloads_in: seconds until it is unloaded, None where it stays."""
    return ModelStatus(
        id, "ready", 0, 0, None, 0, max(context, 0), "", None,
        pinned=unloads_in is None, unloads_in=unloads_in, process_bytes=max(memory, 0),
    )  # fmt: skip


def served(id: str, context: int = 0) -> ModelStatus:
    """A model of a server that does not say whether it is in memory."""
    return ModelStatus(id, "served", 0, 0, None, 0, max(context, 0), "", None)
