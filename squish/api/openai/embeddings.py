"""POST /v1/embeddings: texts to vectors, in OpenAI's shapes."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated

import msgspec

from squish.api import bodies
from squish.api.dialect import Call
from squish.api.fields.documented import documented
from squish.api.fields.foreign import refuse
from squish.api.fields.limits import check_range, keep_alive
from squish.api.fields.prompts import prompts
from squish.api.openai import foreign
from squish.api.openai.requests import Ignored, KeepAlive, NotEmpty
from squish.api.replies.vectors import vectors
from squish.embeddings import MAX_INPUTS, EmbeddingRequest, Embeddings
from squish.errors import InvalidInput

_MANY = 100_000  # numbers from which on an answer is put together in a thread, so that nobody else waits for it


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """POST /v1/embeddings."""

    model: Annotated[str, documented("An installed embedding model.", minLength=1)]
    input: Annotated[
        NotEmpty | list[NotEmpty | int | list[int]],
        documented("A string, a list of strings, token ids, or a list of lists of token ids; nothing empty."),
    ]
    encoding_format: Annotated[str, documented("Default float.", enum=["float", "base64"])] | None = None
    dimensions: (
        Annotated[int, documented("Numbers of each vector, which is cut and scaled to length 1.", minimum=1)] | None
    ) = None
    prompt_name: Annotated[str, documented("Which of the model's own prompts to put before each text.")] | None = None
    truncate: Annotated[bool, documented("true: of a text that is too long, the beginning is taken.")] | None = None
    keep_alive: KeepAlive | None = None
    user: Ignored | None = None


class EmbeddingItem(msgspec.Struct, kw_only=True):
    """embedding: numbers, or with base64 the text of little-endian float32."""

    object: str = "embedding"
    embedding: list[float] | str
    index: int


class EmbeddingUsage(msgspec.Struct, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage


async def embeddings(call: Call) -> EmbeddingList:
    """The answer to POST /v1/embeddings."""
    request = await call.read(read)
    asked = to_embedding(request)
    async with call.asking(asked.model):
        found = await vectors(call, asked)
    as_text = request.encoding_format == "base64"
    if len(found.tokens) * found.dimensions < _MANY:
        return answer(found, asked.model, as_text=as_text)
    return await asyncio.to_thread(answer, found, asked.model, as_text=as_text)


def read(body: bytes) -> EmbeddingsRequest:
    """A body of POST /v1/embeddings. Raises InvalidInput naming the field."""
    request = bodies.decode(body, EmbeddingsRequest)
    refuse(body, foreign.EMBEDDINGS)
    return request


def to_embedding(request: EmbeddingsRequest) -> EmbeddingRequest:
    """What is asked for. Raises InvalidInput naming the field."""
    if not request.model.strip():
        raise InvalidInput("model must not be empty.", param="model")
    if request.encoding_format not in (None, "float", "base64"):
        raise InvalidInput("encoding_format must be float or base64.", param="encoding_format")
    check_range(request.dimensions, "dimensions", 1)
    inputs = tuple(prompts(request.input, "input"))
    if len(inputs) > MAX_INPUTS:
        raise InvalidInput(f"One request can have {MAX_INPUTS} inputs, not {len(inputs)}.", param="input")
    return EmbeddingRequest(
        model=request.model,
        inputs=inputs,
        dimensions=request.dimensions,
        prompt_name=request.prompt_name,
        truncate=bool(request.truncate),
        keep_alive=keep_alive(request.keep_alive),
    )


def answer(found: Embeddings, model: str, *, as_text: bool) -> EmbeddingList:
    """The vectors in OpenAI's shape. as_text: base64, as the openai client asks for and decodes by itself."""
    data = [
        EmbeddingItem(
            embedding=base64.b64encode(found.row(index)).decode() if as_text else found.floats(index), index=index
        )
        for index in range(len(found.tokens))
    ]
    tokens = sum(found.tokens)
    return EmbeddingList(data=data, model=model, usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens))
