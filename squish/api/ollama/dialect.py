"""Ollama's dialect: which paths it has and what makes it one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from squish.api.dialect import Asked, Call, Dialect, Outcome, Route
from squish.api.ollama import changes, embedding, models, translate
from squish.api.ollama.embedding import EmbeddingsRequest, EmbeddingsResponse, EmbedRequest, EmbedResponse
from squish.api.ollama.errors import ErrorLine, error_line
from squish.api.ollama.requests import ChatRequest, CopyRequest, GenerateRequest, NamedModel, PullRequest
from squish.api.ollama.responses import (
    Answer,
    ChatResponse,
    GenerateResponse,
    ListedModels,
    LoadedModels,
    Progress,
    ShownModel,
    Version,
)
from squish.api.ollama.translate import LoadRequest
from squish.api.operation import Operation
from squish.errors import InvalidInput
from squish.format import abilities
from squish.generation import ChatPrompt


async def _chat(call: Call) -> Asked | Answer:
    return await _answer(call, translate.read_chat)


async def _generate(call: Call) -> Asked | Answer:
    return await _answer(call, translate.read_generate)


async def _answer(call: Call, read: Callable[[bytes], Asked | LoadRequest]) -> Asked | Answer:
    asked = await call.read(read)
    if isinstance(asked, LoadRequest):
        return await _load(call, asked)
    prompt = asked.generation.prompts[0]
    if isinstance(prompt, ChatPrompt) and prompt.thinking:
        await _require_thinking(call, asked.generation.model)
    return asked


async def _require_thinking(call: Call, model: str) -> None:
    """Raises InvalidInput where a model cannot think, in words that clients of Ollama look for."""
    async with call.asking(model, counted=False):  # the answer is the request
        installed = await asyncio.to_thread(call.services.runtime.store.find, model)
    installed.manifest.require("chat")
    if not (await asyncio.to_thread(abilities.read, installed.path)).thinking:
        problem = f'"{installed.manifest.id}" does not support thinking.'
        raise InvalidInput(problem, hint="Leave think out.", param="think")


async def _load(call: Call, asked: LoadRequest) -> Answer:
    """Load a model, or with a keep_alive of 0 unload it, when its requests have ended."""
    sessions = call.services.runtime.sessions
    async with call.asking(asked.model):
        if asked.keep_alive != 0:
            sessions.load_anyway(asked.model)  # nothing else is asked for: this is on purpose
            await sessions.load(asked.model)
        sessions.keep(asked.model, asked.keep_alive)
    return asked.reply.kept("unload" if asked.keep_alive == 0 else "load")


def _read(path: str, handle: Callable[[Call], Awaitable[Outcome]]) -> tuple[Route, ...]:
    return tuple(Route(method, path, handle) for method in ("GET", "HEAD"))


def _lines(struct: str) -> tuple[str, str]:
    return "application/x-ndjson", f"Lines, each the JSON of a {struct}; one with an error where it breaks off."


_SWITCH = (("403", "The server was not started with --allow-pull, or a foreign web page asks."),)

_OPERATIONS = (
    Operation("GET", "/", "ollamaRunning", "Says that Ollama is running, for programs that look for it.", None),
    Operation("GET", "/api/version", "ollamaVersion", "The version of Ollama whose API this is.", Version),
    Operation("GET", "/api/tags", "ollamaTags", "Every installed model.", ListedModels),
    Operation("GET", "/api/ps", "ollamaPs", "The models in memory.", LoadedModels),
    Operation("POST", "/api/show", "ollamaShow", "One installed model.", ShownModel, NamedModel),
    Operation(
        "POST", "/api/chat", "ollamaChat", "Answer a conversation.", ChatResponse, ChatRequest, _lines("ChatResponse")
    ),
    Operation(
        "POST",
        "/api/generate",
        "ollamaGenerate",
        "Answer a question, or continue a text.",
        GenerateResponse,
        GenerateRequest,
        _lines("GenerateResponse"),
    ),
    Operation("POST", "/api/embed", "ollamaEmbed", "Vectors of texts.", EmbedResponse, EmbedRequest),
    Operation(
        "POST",
        "/api/embeddings",
        "ollamaEmbeddings",
        "The vector of one text, for older clients.",
        EmbeddingsResponse,
        EmbeddingsRequest,
    ),
    Operation(
        "POST",
        "/api/pull",
        "ollamaPull",
        "Install a model.",
        Progress,
        PullRequest,
        _lines("Progress"),
        errors=_SWITCH,
    ),
    Operation("POST", "/api/copy", "ollamaCopy", "Give a model a second name.", None, CopyRequest, errors=_SWITCH),
    Operation(
        "DELETE",
        "/api/delete",
        "ollamaDelete",
        "Delete a model.",
        None,
        NamedModel,
        errors=(*_SWITCH, ("409", "The model is answering requests.")),
    ),
)

OLLAMA = Dialect(
    name="ollama",
    prefixes=("/api", "/"),
    paths=(
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/tags",
        "/api/show",
        "/api/ps",
        "/api/version",
        "/api/pull",
    ),
    answers={},
    error=error_line,
    errors=ErrorLine,
    operations=_OPERATIONS,
    routes=(
        *_read("/", models.running),
        *_read("/api/version", models.version),
        *_read("/api/tags", models.tags),
        *_read("/api/ps", models.loaded),
        Route("POST", "/api/show", models.show),
        Route("POST", "/api/chat", _chat),
        Route("POST", "/api/generate", _generate),
        Route("POST", "/api/embed", embedding.embed),
        Route("POST", "/api/embeddings", embedding.embeddings),
        Route("POST", "/api/pull", changes.pull),
        Route("POST", "/api/copy", changes.copy),
        Route("DELETE", "/api/delete", changes.delete),
    ),
)
