"""Another Squish: what it tells of itself at /squish/status. Its models come and go by Ollama's routes."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from squish.format.embedding import ModelKind
from squish.generation import ChatPrompt, Prompt
from squish.models.manifest import Manifest
from squish.remote import fields
from squish.remote.connection import ServerConnection
from squish.remote.ollama_server import OllamaServer
from squish.remote.server import Listed, ServerMemory, ServerState, manifests
from squish.sessions.activity import RequestStatus, Totals
from squish.sessions.backend import Offers
from squish.sessions.model_status import ModelStatus


class InstalledThere(msgspec.Struct, frozen=True):
    id: str
    kind: ModelKind = "chat"
    size: int = 0
    parameters: int = 0
    context_length: int = 0
    quantization: str = ""
    architecture: str = ""
    license: str = ""


class MemoryThere(msgspec.Struct, frozen=True):
    used: int
    total: int


class SquishStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of /squish/status. can_change: it takes models away for its clients."""

    version: str
    installed: list[InstalledThere]
    models: list[ModelStatus]
    requests: list[RequestStatus]
    totals: Totals
    memory: MemoryThere
    can_change: bool = False


class CountedTokens(msgspec.Struct, frozen=True):
    input_tokens: int


class SquishServer(OllamaServer):
    """first: the status by which it was recognized."""

    def __init__(self, connection: ServerConnection, first: SquishStatus) -> None:
        super().__init__(connection, f"Squish {connection.shown(first.version)[:20]}", fields.SQUISH)
        self.offers = Offers(delete=first.can_change, preload=False, no_kv_bits=fields.ON_SERVER)

    async def models(self) -> list[Manifest]:
        status = await status_of(self._connection)
        return manifests(
            (
                Listed(
                    each.id,
                    each.size,
                    each.parameters,
                    each.context_length,
                    each.quantization,
                    each.architecture,
                    each.license,
                    each.kind,
                )
                for each in status.installed
            ),
            self._connection.name,
        )

    async def state(self) -> ServerState:
        status = await status_of(self._connection)
        memory = ServerMemory(max(status.memory.used, 0), max(status.memory.total, 1))
        models = (replace(each, pinned=each.state == "ready" and each.unloads_in is None) for each in status.models)
        return ServerState(tuple(models), tuple(status.requests), status.totals, memory)

    async def count(self, model: str, prompts: tuple[Prompt, ...]) -> tuple[int, ...] | None:
        """Nobody is made to load a model for a count."""
        status = await status_of(self._connection)
        if not any(each.serves(model) and each.state == "ready" for each in status.models):
            return None
        counts = []
        for prompt in prompts:
            if not isinstance(prompt, ChatPrompt):
                return None
            counts.append(await self._count(model, prompt))
        return tuple(counts)

    async def _count(self, model: str, prompt: ChatPrompt) -> int:
        system = "\n\n".join(each.content for each in prompt.messages if each.role == "system")
        messages = [
            {"role": "assistant" if each.role == "assistant" else "user", "content": each.content}
            for each in prompt.messages
            if each.role != "system" and each.content
        ]
        body = {"model": model, "messages": messages, **({"system": system} if system else {})}
        counted = await self._connection.post("/v1/messages/count_tokens", body, CountedTokens)
        return max(counted.input_tokens, 0)

    async def cancel(self, request: int) -> None:
        await self._connection.send("POST", f"/squish/cancel/{request}", {})


async def status_of(connection: ServerConnection, seconds: float = 10.0) -> SquishStatus:
    """Raises RemoteError."""
    return await connection.get("/squish/status", SquishStatus, seconds=seconds)
