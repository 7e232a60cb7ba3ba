"""Vectors in Ollama's shapes, from a real embedding model by Ollama's own client."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from squish.api.ollama import embedding
from squish.config.settings import Settings
from squish.errors import InvalidInput
from squish.runtime import Runtime
from tests.api.raw_http import ask, scripted
from tests.api.scripted import serving
from tests.conftest import EMBEDDING_MODEL
from tests.later import ollama


async def test_texts_become_vectors(embedding_settings: Settings) -> None:
    async with (
        Runtime(embedding_settings) as runtime,
        serving(runtime) as address,
        ollama.AsyncClient(address.url) as client,
    ):
        loaded = await client.embed(EMBEDDING_MODEL, [], keep_alive=60)
        assert loaded.embeddings == []
        assert (loaded.load_duration or 0) > 0
        found = await client.embed(EMBEDDING_MODEL, ["a cat", "word " * 600])  # the second is cut
        assert [len(vector) for vector in found.embeddings] == [384, 384]
        assert (found.total_duration or 0) > 0
        assert (found.prompt_eval_count or 0) > 8
        older = await client.embeddings(EMBEDDING_MODEL, "a cat")
        assert older.embedding == pytest.approx(found.embeddings[0], abs=1e-6)
        short = await client.embed(EMBEDDING_MODEL, "a cat", dimensions=8)
        assert [math.hypot(*vector) for vector in short.embeddings] == pytest.approx([1.0])
        with pytest.raises(ollama.ResponseError) as refused:
            await client.embed(EMBEDDING_MODEL, "word " * 600, truncate=False)
        assert refused.value.status_code == 400
        with pytest.raises(ollama.ResponseError, match="writes no answers"):
            await client.generate(EMBEDDING_MODEL, "Hi")
        assert (await client.show(EMBEDDING_MODEL)).capabilities == ["embedding"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", "model"),
        (b'{"model": "m", "input": [1]}', "input"),
        (b'{"model": "m", "input": {}}', "input"),
        (b'{"model": "m", "input": "x", "dimensions": 0}', "dimensions"),
        (b'{"model": "m", "input": "x", "truncate": "no"}', "truncate"),
        (b'{"model": "m", "prompt": "x"}', "prompt"),
        (b'{"model": "m", "input": "x", "normalize": false}', "normalize"),
        (b'{"model": "m", "input": "x", "encoding_format": "base64"}', "encoding_format"),
    ],
)
def test_a_wrong_field_is_named(body: bytes, param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        embedding.read_embed(body)
    assert (refused.value.param or "").startswith(param)


@pytest.mark.parametrize("field", ["input", "dimensions"])
def test_what_only_the_newer_path_has_is_refused_at_the_older(field: str) -> None:
    with pytest.raises(InvalidInput, match=field) as refused:
        embedding.read_embeddings(b'{"model": "m", "prompt": "x", "%s": 4}' % field.encode())
    assert "POST /api/embed" in (refused.value.hint or "")
    assert embedding.read_embeddings(b'{"model": "m", "prompt": "x", "truncate": true, "options": {}}').prompt == "x"


@pytest.mark.parametrize("body", [{"model": "m", "input": ["x", ""]}, {"model": " ", "input": "x"}, {"input": "x"}])
async def test_a_refusal_is_in_ollamas_form(tmp_path: Path, body: dict[str, object]) -> None:
    async with scripted(Settings(home=tmp_path, cache_dir=tmp_path / "models")) as server:
        answer = await ask(server, "POST", "/api/embed", body)
    assert answer.status == 400
    assert b'{"error":"' in answer.body
