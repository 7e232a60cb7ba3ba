"""A server with Ollama's routes for models: Ollama itself, and every Squish."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

from squish.generation import Prompt
from squish.models.manifest import Manifest
from squish.remote.connection import ServerConnection
from squish.remote.fields import ON_SERVER, Fields
from squish.remote.server import Listed, ServerState, guessed_kind, in_memory, manifests
from squish.sessions.backend import Offers

_LOADING = 900.0  # seconds that a model may take
_FOREVER = 10 * 365 * 86400.0
_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


class OllamaDetails(msgspec.Struct, frozen=True):
    family: str | None = None
    parameter_size: str | None = None
    quantization_level: str | None = None


class OllamaTag(msgspec.Struct, frozen=True):
    """size: of its files, or where it is in memory, what it takes there. expires_at, context_length: of such a one."""

    name: str
    size: int | None = None
    details: OllamaDetails | None = None
    expires_at: str | None = None
    context_length: int | None = None


class OllamaTags(msgspec.Struct, frozen=True):
    models: list[OllamaTag] | None = None


class Shown(msgspec.Struct, frozen=True):
    capabilities: list[str] | None = None


class OllamaServer:
    """Models come and go by its own routes; answers come by OpenAI's API."""

    chat = "/v1/chat/completions"
    offers = Offers(pin=True, delete=False, preload=False, cancel=False, no_kv_bits=ON_SERVER)

    def __init__(self, connection: ServerConnection, program: str, fields: Fields) -> None:
        self.program, self.fields = program, fields
        self._connection = connection

    async def models(self) -> list[Manifest]:
        found = await self._connection.get("/api/tags", OllamaTags)
        return manifests(map(listed, found.models or ()), self._connection.name)

    async def state(self) -> ServerState:
        found = await self._connection.get("/api/ps", OllamaTags)
        now = datetime.now(UTC)
        return ServerState(
            tuple(
                in_memory(each.name, each.context_length or 0, each.size or 0, unloads_in=_left(each, now))
                for each in found.models or ()
            )
        )

    async def count(self, model: str, prompts: tuple[Prompt, ...]) -> tuple[int, ...] | None:
        return None

    async def calls_tools(self, model: str) -> bool:
        shown = await self._connection.post("/api/show", {"model": model}, Shown)
        return shown.capabilities is None or "tools" in shown.capabilities

    async def load(self, model: str) -> None:
        await self._connection.send("POST", "/api/generate", {"model": model, "stream": False}, seconds=_LOADING)

    async def unload(self, model: str) -> None:
        body = {"model": model, "stream": False, "keep_alive": 0}
        await self._connection.send("POST", "/api/generate", body, seconds=_LOADING)

    async def pin(self, model: str, pinned: bool) -> None:
        body = {"model": model, "stream": False, **({"keep_alive": -1} if pinned else {})}
        await self._connection.send("POST", "/api/generate", body, seconds=_LOADING)

    async def remove(self, model: str) -> None:
        await self._connection.send("DELETE", "/api/delete", {"model": model, "name": model})

    async def cancel(self, request: int) -> None:
        """It lists no requests."""


def listed(tag: OllamaTag) -> Listed:
    details = tag.details or OllamaDetails()
    return Listed(
        tag.name,
        size=tag.size or 0,
        parameters=_parameters(details.parameter_size or ""),
        quantization=details.quantization_level or "",
        architecture=details.family or "",
        kind="embedding" if (details.family or "").endswith("bert") else guessed_kind(tag.name),
    )


def _parameters(text: str) -> int:
    """The number that is written `8.0B`; 0 for any other text."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([KMBT]?)", text.strip())
    return int(float(match[1]) * _UNITS.get(match[2], 1)) if match else 0


def _left(tag: OllamaTag, now: datetime) -> float | None:
    """Seconds until it is unloaded; None where it stays."""
    text = re.sub(r"(\.\d{6})\d+", r"\1", tag.expires_at or "")  # Ollama writes nanoseconds
    try:
        ends = datetime.fromisoformat(text)
    except ValueError:
        return None
    left = ((ends if ends.tzinfo else ends.replace(tzinfo=UTC)) - now).total_seconds()
    return None if left > _FOREVER else max(left, 0.0)
