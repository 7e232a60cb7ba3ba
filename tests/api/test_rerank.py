"""POST /v1/rerank: what a body means, and a cross-encoder that is pulled and asked."""

from __future__ import annotations

import asyncio
import json
from array import array
from pathlib import Path
from typing import Any

import pytest

from squish.api.openai.rerank import DocumentText, ranked, read, to_pairs
from squish.config.settings import Settings
from squish.embeddings import MAX_INPUTS, Embeddings, TextPair
from squish.errors import InvalidInput
from squish.runtime import Runtime
from tests.api.raw_http import Server, ask
from tests.api.scripted import ScriptedSessions, serving
from tests.conftest import home_settings, install_real
from tests.worker.embedding.test_ranker import write

THREE = Embeddings(array("f", [0.25, 0.75, 0.25]).tobytes(), 1, (3, 4, 5))


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "query": "q", "documents": ["a", "b", "c"]} | fields).encode()


def test_a_document_is_a_text_or_an_object_with_one() -> None:
    asked = to_pairs(read(body(documents=["a", {"text": "b"}], truncate=True, keep_alive="5m")))
    assert asked.inputs == (TextPair("q", "a"), TextPair("q", "b"))
    assert (asked.kind, asked.truncate, asked.keep_alive) == ("rerank", True, 300)


def test_the_best_come_first_and_equal_ones_in_their_order() -> None:
    found = ranked(read(body(return_documents=True)), THREE)
    assert [(each.index, each.relevance_score) for each in found.results] == [(1, 0.75), (0, 0.25), (2, 0.25)]
    assert [each.document for each in found.results] == [DocumentText(text=each) for each in "bac"]
    assert found.usage.total_tokens == 12
    assert [each.index for each in ranked(read(body(top_n=1)), THREE).results] == [1]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": None}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": ["a"] * (MAX_INPUTS + 1)}, "documents"),
        ({"documents": [1]}, "documents"),
        ({"documents": [{}]}, "documents"),
        ({"model": " "}, "model"),
        ({"top_n": 0}, "top_n"),
        ({"max_tokens_per_doc": 8}, "max_tokens_per_doc"),
        ({"keep_alive": "soon"}, "keep_alive"),
    ],
)
def test_what_cannot_be_done_is_refused_by_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        to_pairs(read(body(**fields)))
    assert (refused.value.param or "").startswith(param)


async def test_a_pulled_cross_encoder_scores_and_does_nothing_else(tmp_path: Path) -> None:
    (folder := tmp_path / "ranker").mkdir()
    write(folder, "bert")
    settings = await _installed(tmp_path, folder)
    async with Runtime(settings) as runtime, serving(runtime) as address:
        server = Server(address, ScriptedSessions())
        assert [each.kind for each in runtime.store.list()] == ["rerank"]
        asked = {"model": "ranker:1b", "query": "pandas", "documents": ["bread", "pandas live in China", "rain"]}
        answer = await ask(server, "POST", "/v1/rerank", asked | {"top_n": 2})
        assert answer.status == 200, answer.body
        found = json.loads(answer.body)["results"]
        assert len(found) == 2 and 1 > found[0]["relevance_score"] >= found[1]["relevance_score"] > 0
        long = await ask(server, "POST", "/v1/rerank", asked | {"documents": ["a", "word " * 400]})
        assert (long.status, long.error["code"], long.error["param"]) == (
            400,
            "context_length_exceeded",
            "documents[1]",
        )
        for path, question in (
            ("/v1/embeddings", {"input": "a"}),
            ("/api/embed", {"input": "a"}),
            ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
        ):
            refused = await ask(server, "POST", path, {"model": "ranker:1b"} | question)
            assert refused.status == 400 and b"is a reranking model" in refused.body, path


async def _installed(home: Path, folder: Path) -> Settings:
    await asyncio.to_thread(install_real, home, (str(folder), "ranker:1b"))
    return home_settings(home)
