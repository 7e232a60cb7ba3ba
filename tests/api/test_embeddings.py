"""POST /v1/embeddings: what a body means, and the openai client against the real model."""

from __future__ import annotations

import json
import math
from array import array
from base64 import b64decode
from pathlib import Path
from typing import Any

import msgspec
import pytest

from squish.api.batches.answers import Answers
from squish.api.batches.lines import Item
from squish.api.metrics import Metrics
from squish.api.openai.embeddings import answer, read, to_embedding
from squish.config.settings import Settings
from squish.embeddings import MAX_INPUTS, Embeddings
from squish.errors import InvalidInput
from squish.generation import TextPrompt, TokenPrompt
from squish.runtime import Runtime
from tests.api.raw_http import Server, ask
from tests.api.scripted import ScriptedSessions, serving
from tests.conftest import EMBEDDING_MODEL, MODEL
from tests.later import openai

REFERENCE = Path(__file__).parent.parent / "data" / "minilm-reference.json"
TWO = Embeddings(array("f", [1.0, 2.0, 0.5, -1.0]).tobytes(), 2, (3, 4))


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "a"} | fields).encode()


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("a", (TextPrompt("a"),)),
        (["a", "b"], (TextPrompt("a"), TextPrompt("b"))),
        ([1, 2], (TokenPrompt((1, 2)),)),
        ([[1, 2], [3]], (TokenPrompt((1, 2)), TokenPrompt((3,)))),
    ],
)
def test_an_input_has_four_forms(given: Any, inputs: Any) -> None:
    assert to_embedding(read(body(input=given))).inputs == inputs


def test_every_other_field_is_taken_over() -> None:
    fields = {"dimensions": 8, "prompt_name": "query", "truncate": True, "keep_alive": "5m", "user": "u"}
    asked = to_embedding(read(body(**fields, encoding_format="base64", stream=False)))
    assert (asked.dimensions, asked.prompt_name, asked.truncate, asked.keep_alive) == (8, "query", True, 300)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [-1]}, "input"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "input"),
        ({"input": None}, "input"),
        ({"model": " "}, "model"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"input_type": "query"}, "input_type"),
        ({"truncate_prompt_tokens": 8}, "truncate_prompt_tokens"),
        ({"stream": True}, "stream"),
        ({"normalize": False}, "normalize"),
        ({"add_special_tokens": False}, "add_special_tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_by_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        to_embedding(read(body(**fields)))
    assert (refused.value.param or "").partition("[...]")[0] == param


def test_vectors_are_numbers_or_base64_of_float32() -> None:
    plain = answer(TWO, "m", as_text=False)
    assert [(each.index, each.embedding) for each in plain.data] == [(0, [1.0, 2.0]), (1, [0.5, -1.0])]
    assert (plain.usage.prompt_tokens, plain.usage.total_tokens) == (7, 7)
    packed = answer(TWO, "m", as_text=True)
    assert [array("f", b64decode(str(each.embedding))).tolist() for each in packed.data] == [[1.0, 2.0], [0.5, -1.0]]


async def test_the_openai_client_and_what_is_refused(embedding_settings: Settings) -> None:
    from langchain_openai import OpenAIEmbeddings  # seconds, in each process that collects tests

    rows = json.loads(REFERENCE.read_text())["rows"][:3]
    async with Runtime(embedding_settings) as runtime, serving(runtime) as address:
        server = Server(address, ScriptedSessions())
        async with openai.AsyncOpenAI(base_url=f"{address.url}/v1", api_key="any", max_retries=0) as client:
            found = await client.embeddings.create(model=EMBEDDING_MODEL, input=[row["text"] for row in rows])
            assert found.usage.total_tokens == sum(row["tokens"] for row in rows)
            for row, item in zip(rows, found.data, strict=True):
                assert math.dist(row["vector"], item.embedding) < 1e-5
            cut = await client.embeddings.create(
                model=EMBEDDING_MODEL, input="a", dimensions=8, encoding_format="float"
            )
            assert len(cut.data[0].embedding) == 8
            library = OpenAIEmbeddings(
                model=EMBEDDING_MODEL,
                async_client=client.embeddings,
                client=client.embeddings,
                check_embedding_ctx_length=False,
            )
            assert math.dist(rows[0]["vector"], await library.aembed_query(rows[0]["text"])) < 1e-5
            with pytest.raises(openai.BadRequestError, match=r"input\[1\] has at least") as long:
                await client.embeddings.create(model=EMBEDDING_MODEL, input=["a", "word " * 300])
            assert long.value.code == "context_length_exceeded" and long.value.param == "input[1]"
            with pytest.raises(openai.BadRequestError, match="is an embedding model"):
                await client.chat.completions.create(
                    model=EMBEDDING_MODEL, messages=[{"role": "user", "content": "Hi"}]
                )
            with pytest.raises(openai.NotFoundError, match=f"squish pull {MODEL}"):
                await client.embeddings.create(model=MODEL, input="a")
        for path, question in (
            ("/v1/completions", {"prompt": "Hi"}),
            ("/v1/responses", {"input": "Hi"}),
            ("/v1/messages", {"max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}),
            ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
            ("/api/generate", {"prompt": "Hi"}),
        ):
            refused = await ask(server, "POST", path, {"model": EMBEDDING_MODEL} | question)
            assert refused.status == 400 and b"is an embedding model" in refused.body, path


async def test_vectors_of_a_batch_are_counted_under_the_installed_name(embedding_settings: Settings) -> None:
    used: dict[str, int] = {}
    async with Runtime(embedding_settings) as runtime:
        metrics = Metrics(runtime.sessions)
        answers = Answers(
            runtime.sessions, "a batch", used=lambda model, of: used.update({model: of.prompt}), metrics=metrics
        )
        asked = runtime.store.find(EMBEDDING_MODEL).manifest.source.removeprefix("file:")  # as it was imported
        line = await answers.line(Item("1", "/v1/embeddings", msgspec.Raw(body(model=asked, input="A river"))))
    assert line.is_answer
    assert used.keys() == {EMBEDDING_MODEL} and used[EMBEDDING_MODEL] > 2
    counted = f'squish_embedding_tokens_total{{model="{EMBEDDING_MODEL}"}} {used[EMBEDDING_MODEL]}.0'
    assert counted in metrics.text().decode()
