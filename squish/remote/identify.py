"""Which kind of server listens at an address: asked once, when it is connected to."""

from __future__ import annotations

import msgspec

from squish.errors import RemoteError
from squish.remote import fields
from squish.remote.connection import NotJson, Refusal, ServerConnection
from squish.remote.llama_server import LlamaServer, props_of
from squish.remote.lm_studio_server import LmStudioServer, is_lm_studio
from squish.remote.mlx_server import MlxServer
from squish.remote.ollama_server import OllamaServer
from squish.remote.plain_server import PlainServer
from squish.remote.server import ModelServer
from squish.remote.squish_server import SquishServer, status_of
from squish.remote.wire import ModelEntries

_PROBE = 5.0  # seconds

_PROGRAMS = {"vllm": ("vLLM", fields.VLLM), "sglang": ("SGLang", fields.VLLM)}


class MlxHealth(msgspec.Struct, frozen=True):
    status: str


class OllamaVersion(msgspec.Struct, frozen=True):
    version: str


async def identify(connection: ServerConnection) -> ModelServer:
    """Raises RemoteError where nothing answers, where the key is refused, and where it is not an API of models."""
    root, owners = await _list(connection)
    if owners <= {"squish"}:  # also where it has no model yet
        try:
            return SquishServer(connection, await status_of(connection, _PROBE))
        except RemoteError:  # another program without models, or a Squish that does not say this much
            if owners:
                return OllamaServer(connection, "Squish", fields.SQUISH)
    if owners <= {""} and await _is_mlx(connection):
        return MlxServer(connection)
    if "llamacpp" in owners:
        return LlamaServer(connection, root, await props_of(connection))
    for owner in owners & _PROGRAMS.keys():
        program, written = _PROGRAMS[owner]
        return PlainServer(connection, root, program, written)
    if (version := await _version(connection)) is not None:
        return OllamaServer(connection, f"Ollama {connection.shown(version)[:20]}", fields.OLLAMA)
    if await is_lm_studio(connection):
        return LmStudioServer(connection)
    return PlainServer(connection, root, "OpenAI's API", fields.PLAIN)


async def _list(connection: ServerConnection) -> tuple[str, frozenset[str]]:
    """Below which path the API lies, and to whom its models belong."""
    try:
        found, root = await connection.get("/v1/models", ModelEntries), "/v1"
    except NotJson as error:
        if not (error.empty and await _is_mlx(connection)):
            raise
        return "/v1", frozenset()
    except Refusal as refusal:
        if refusal.status not in (404, 405):
            raise RemoteError(refusal.message, hint=refusal.hint or _advice(connection, refusal.status)) from None
        try:  # an address that ends in a path of its own, such as /v1beta/openai
            found, root = await connection.get("/models", ModelEntries), ""
        except RemoteError:
            problem = f"{connection.name} has no list of models: nothing is at /v1/models."
            hint = "Check the address: what --connect gets is what stands before /v1."
            raise RemoteError(problem, hint=hint) from None
    return root, frozenset((each.owned_by or "").lower() for each in found.data or ())


def _advice(connection: ServerConnection, status: int) -> str | None:
    if status == 503:  # llama-server while it reads its model
        return "Try again when the server is ready."
    # Some that want a key say so in other words: LiteLLM without a database answers 400 or 500.
    return None if connection.has_key else "If it wants a key, name its variable: --key-env VAR."


async def _is_mlx(connection: ServerConnection) -> bool:
    """mlx_lm.server says nothing of itself: it is Python's own HTTP server, and it is well."""
    if not connection.software.startswith("BaseHTTP/"):
        return False
    try:
        return (await connection.get("/health", MlxHealth, seconds=_PROBE)).status == "ok"
    except RemoteError:
        return False


async def _version(connection: ServerConnection) -> str | None:
    try:
        return (await connection.get("/api/version", OllamaVersion, seconds=_PROBE)).version
    except RemoteError:
        return None
