"""POST /api/embed and /api/embeddings: texts to vectors, in Ollama's shapes."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import msgspec

from squish.api import bodies
from squish.api.dialect import Call
from squish.api.fields.documented import documented
from squish.api.fields.foreign import refuse
from squish.api.fields.limits import check_range, keep_alive
from squish.api.ollama.foreign import EMBED, EMBEDDINGS
from squish.api.ollama.requests import KeepAlive, Model, Taken
from squish.api.replies.vectors import vectors
from squish.embeddings import EmbeddingRequest, Embeddings
from squish.errors import InvalidInput
from squish.generation import TextPrompt

_MANY = 100_000  # numbers from which on an answer is put together in a thread, so that nobody else waits for it


class EmbedRequest(msgspec.Struct, kw_only=True):
    """POST /api/embed. Without a text the model is loaded."""

    model: Model
    input: Annotated[str | list[str], documented("A text, or a list of them.")] | None = None
    truncate: Annotated[bool, documented("false: a text that is too long is refused, and not cut.")] | None = None
    dimensions: (
        Annotated[int, documented("Numbers of each vector, which is cut and scaled to length 1.", minimum=1)] | None
    ) = None
    keep_alive: KeepAlive | None = None
    options: Taken = None


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """POST /api/embeddings, which older clients use."""

    model: Model
    prompt: str | None = None
    keep_alive: KeepAlive | None = None
    options: Taken = None


class EmbedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in nanoseconds. load_duration: about 0 where the model was loaded."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class EmbeddingsResponse(msgspec.Struct, frozen=True):
    embedding: list[float]


async def embed(call: Call) -> EmbedResponse:
    """The answer to POST /api/embed."""
    began = time.monotonic_ns()
    request = await call.read(read_embed)
    texts = [request.input] if isinstance(request.input, str) else request.input or []
    if texts == [""]:
        texts = []
    asked = _asked(request, texts, "input", request.dimensions, request.truncate is not False)
    found, load = await _vectors(call, request.model, asked, request.keep_alive)
    numbers = await _numbers(found)
    return EmbedResponse(
        model=request.model,
        embeddings=numbers,
        total_duration=time.monotonic_ns() - began,
        load_duration=load,
        prompt_eval_count=sum(found.tokens) if found else 0,
    )


async def embeddings(call: Call) -> EmbeddingsResponse:
    """The answer to POST /api/embeddings."""
    request = await call.read(read_embeddings)
    asked = _asked(request, [request.prompt] if request.prompt else [], "prompt", None, True)
    found, _ = await _vectors(call, request.model, asked, request.keep_alive)
    return EmbeddingsResponse(found.floats(0) if found else [])


def read_embed(body: bytes) -> EmbedRequest:
    """A body of POST /api/embed. Raises InvalidInput naming the field."""
    request = bodies.decode(body, EmbedRequest)
    refuse(body, EMBED)
    check_range(request.dimensions, "dimensions", 1)
    return request


def read_embeddings(body: bytes) -> EmbeddingsRequest:
    """A body of POST /api/embeddings. Raises InvalidInput naming the field."""
    request = bodies.decode(body, EmbeddingsRequest)
    refuse(body, EMBEDDINGS)
    return request


def _asked(
    request: EmbedRequest | EmbeddingsRequest, texts: list[str], field: str, dimensions: int | None, truncate: bool
) -> EmbeddingRequest | None:
    """What is asked for; None for only loading the model. Raises InvalidInput naming the field."""
    if not request.model.strip():
        raise InvalidInput("model must not be empty.", param="model")
    for i, text in enumerate(texts):
        if not text:
            raise InvalidInput(f"{field}[{i}] must not be empty.", param=f"{field}[{i}]")
    seconds = keep_alive(request.keep_alive)
    if not texts:
        return None
    inputs = tuple(map(TextPrompt, texts))
    return EmbeddingRequest(request.model, inputs, dimensions, truncate=truncate, keep_alive=seconds)


async def _vectors(
    call: Call, model: str, asked: EmbeddingRequest | None, stay: float | str | None
) -> tuple[Embeddings | None, int]:
    """The vectors, and the nanoseconds for which the model was loaded before."""
    sessions = call.services.runtime.sessions
    began = time.monotonic_ns()
    async with call.asking(model):
        manifest = (await asyncio.to_thread(call.services.runtime.store.find, model)).manifest
        manifest.require("embedding")
        await sessions.load(model)
        load = time.monotonic_ns() - began
        if asked is None:
            sessions.keep(model, keep_alive(stay))
            return None, load
        return await vectors(call, asked), load


async def _numbers(found: Embeddings | None) -> list[list[float]]:
    if found is None:
        return []
    if len(found.tokens) * found.dimensions < _MANY:
        return _rows(found)
    return await asyncio.to_thread(_rows, found)


def _rows(found: Embeddings) -> list[list[float]]:
    return [found.floats(index) for index in range(len(found.tokens))]
