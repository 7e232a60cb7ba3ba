"""Vectors from a real embedding model in a real worker, against the reference implementation's."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squish.config.settings import Settings
from squish.embeddings import MAX_INPUTS, EmbeddingRequest, Embeddings
from squish.errors import ContextLengthExceeded, EngineError, InvalidInput, QueueFull
from squish.generation import ChatPrompt, GenerationRequest, Message, SamplingParams, TextPrompt, TokenPrompt
from squish.runtime import Runtime
from tests.conftest import EMBEDDING_MODEL, MODEL

REFERENCE = Path(__file__).parent.parent / "data" / "minilm-reference.json"
_LONG = TextPrompt("word " * 300)


@pytest.fixture(scope="module")
def reference() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(REFERENCE.read_text())["rows"]
    return rows


@pytest.fixture
async def vectors(embedding_settings: Settings) -> AsyncIterator[Runtime]:
    async with Runtime(embedding_settings) as opened:
        yield opened


def ask(*inputs: str | TextPrompt | TokenPrompt, **options: Any) -> EmbeddingRequest:
    prompts = tuple(TextPrompt(each) if isinstance(each, str) else each for each in inputs)
    return EmbeddingRequest(EMBEDDING_MODEL, prompts, **options)


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


def rows(found: Embeddings) -> list[list[float]]:
    return [found.floats(index) for index in range(len(found.tokens))]


async def test_vectors_are_the_reference_s_and_each_in_its_place(
    vectors: Runtime, reference: list[dict[str, Any]]
) -> None:
    found = await vectors.sessions.embed(ask(*(row["text"] for row in reference)))
    assert found.tokens == tuple(row["tokens"] for row in reference)
    assert found.dimensions == 384 and len(found.vectors) == 4 * 384 * len(reference)
    near = [cosine(vector, row["vector"]) for vector, row in zip(rows(found), reference, strict=True)]
    assert min(near) > 0.999999
    assert [math.hypot(*vector) for vector in rows(found)] == pytest.approx([1.0] * len(reference))

    [cut] = rows(await vectors.sessions.embed(ask(reference[0]["text"], dimensions=64)))
    assert len(cut) == 64 and math.hypot(*cut) == pytest.approx(1.0)
    assert cosine(cut, reference[0]["vector"][:64]) > 0.999999

    [whole] = rows(await vectors.sessions.embed(ask("hello world")))
    [tokens] = rows(await vectors.sessions.embed(ask(TokenPrompt((101, 7592, 2088, 102)))))
    assert tokens == pytest.approx(whole, abs=1e-6)

    beginning = await vectors.sessions.embed(ask(_LONG, truncate=True))
    assert beginning.tokens == (256,)
    [request] = vectors.sessions.status()
    assert (request.running, request.waiting, request.context_length) == (0, 0, 256)
    assert [each.state for each in vectors.sessions.activity()] == ["done"] * 5


async def test_what_cannot_be_computed_is_refused_by_name(vectors: Runtime) -> None:
    embed = vectors.sessions.embed
    with pytest.raises(
        ContextLengthExceeded, match=r"input\[1\] has at least 302 tokens; this model takes 256"
    ) as error:
        await embed(ask("a", _LONG))
    assert error.value.param == "input[1]"
    with pytest.raises(ContextLengthExceeded, match=r"^input has at least 257"):
        await embed(ask(TextPrompt("x" * 100_000)))
    with pytest.raises(InvalidInput, match=r"Token id 30522 is outside 0\.\.30521") as foreign:
        await embed(ask("a", TokenPrompt((30_522,))))
    assert foreign.value.param == "input[1]"
    with pytest.raises(InvalidInput, match="input has no tokens"):
        await embed(ask(TokenPrompt(())))
    with pytest.raises(InvalidInput, match="vectors of this model have 384"):
        await embed(ask("a", dimensions=385))
    with pytest.raises(InvalidInput, match="no prompt named 'query'; it has none"):
        await embed(ask("a", prompt_name="query"))
    assert len(rows(await embed(ask("a", "")))) == 2, "a text without characters has the model's own marks"


async def test_a_request_that_is_cancelled_leaves_and_the_others_do_not_notice(vectors: Runtime) -> None:
    await vectors.sessions.load(EMBEDDING_MODEL)
    many = asyncio.create_task(vectors.sessions.embed(ask(*[TextPrompt("word " * 250)] * MAX_INPUTS)))
    while not vectors.sessions.activity():
        await asyncio.sleep(0)
    few = await vectors.sessions.embed(ask("hello"))
    assert few.tokens == (3,) and not many.done(), "the short request has overtaken"
    many.cancel()
    with pytest.raises(asyncio.CancelledError):
        await many
    while vectors.sessions.status()[0].running:
        await vectors.sessions.embed(ask("hello"))

    stopped = asyncio.create_task(vectors.sessions.embed(ask(*[TextPrompt("word " * 250)] * MAX_INPUTS)))
    while not (running := [each for each in vectors.sessions.activity() if each.running]):
        await asyncio.sleep(0)
    vectors.sessions.cancel(running[0].id)
    with pytest.raises(EngineError, match="cancelled"):
        await stopped


async def test_a_full_queue_is_said_at_once(embedding_settings: Settings) -> None:
    async with Runtime(replace(embedding_settings, max_queue=0, max_concurrency=1)) as runtime:
        first = asyncio.create_task(runtime.sessions.embed(ask("a")))
        while not runtime.sessions.activity():
            await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await runtime.sessions.embed(ask("b"))
        assert (await first).tokens == (3,)


async def test_each_kind_of_model_refuses_what_the_other_does(vectors: Runtime, real_settings: Settings) -> None:
    request = GenerationRequest(EMBEDDING_MODEL, (TextPrompt("hi"),), SamplingParams())
    with pytest.raises(InvalidInput, match=r"is an embedding model: .* writes no answers") as refused:
        vectors.sessions.generate(request)
    assert refused.value.param == "model" and f"squish embed {EMBEDDING_MODEL}" in (refused.value.hint or "")
    with pytest.raises(InvalidInput, match="writes no answers"):
        await vectors.sessions.count_loading(EMBEDDING_MODEL, (ChatPrompt((Message("user", "hi"),)),))
    async with Runtime(real_settings) as runtime:
        with pytest.raises(InvalidInput, match="is not an embedding model"):
            await runtime.sessions.embed(EmbeddingRequest(MODEL, (TextPrompt("hi"),)))
        assert runtime.sessions.status() == []


@pytest.mark.parametrize("inputs", [0, MAX_INPUTS + 1])
def test_a_request_has_a_bounded_number_of_inputs(inputs: int) -> None:
    with pytest.raises(InvalidInput, match=f"1 to {MAX_INPUTS} inputs, not {inputs}"):
        ask(*["a"] * inputs)
