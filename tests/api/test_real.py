"""The API with the real model behind it: what the user's page promises, by OpenAI's client and as plain HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from squish.config.settings import Settings
from squish.generation import Finished, GenerationEvent, GenerationRequest, TextDelta
from squish.runtime import Runtime
from squish.sessions.activity import RequestFollower
from squish.sessions.answer import Generation
from tests.api.scripted import serving
from tests.conftest import MODEL, PATIENCE, UNENDING
from tests.later import openai

GERMANY: list[Any] = [{"role": "user", "content": "What is the capital of Germany?"}]
ENDLESS = {"model": MODEL, "prompt": "1, 2, 3,", "max_tokens": 7000, "logit_bias": dict(UNENDING)}


pytestmark = pytest.mark.asyncio(loop_scope="module")  # one server, and so one loaded model, for all of them


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(real_home: Path) -> AsyncIterator[Runtime]:
    settings = Settings.from_environment({"HOME": str(real_home), "SQUISH_OFFLINE": "1"})
    async with Runtime(settings) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(runtime: Runtime) -> AsyncIterator[str]:
    async with serving(runtime) as address:
        yield address.url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client


async def http(url: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a plain GET or POST."""

    def ask() -> tuple[int, dict[str, Any]]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return await asyncio.to_thread(ask)


async def test_the_installed_model_is_listed(url: str, runtime: Runtime) -> None:
    created = runtime.store.find(MODEL).manifest.created
    model = {"id": MODEL, "object": "model", "created": created, "owned_by": "squish"}
    assert await http(f"{url}/v1/models") == (200, {"object": "list", "data": [model]})
    assert await http(f"{url}/v1/models/{MODEL}") == (200, model)
    assert await http(f"{url}/health") == (200, {"status": "ok"})


async def test_the_example_of_the_page(url: str) -> None:
    system = {"role": "system", "content": "You are a concise assistant."}
    body = {"model": MODEL, "messages": [system, *GERMANY], "max_tokens": 16, "temperature": 0.5}
    status, answer = await http(f"{url}/v1/chat/completions", body)
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["model"] == MODEL
    choice, usage = answer["choices"][0], answer["usage"]
    assert (choice["index"], choice["message"]["role"], choice["message"]["refusal"]) == (0, "assistant", None)
    assert choice["message"]["content"]
    assert choice["finish_reason"] in ("stop", "length")
    assert 0 < usage["completion_tokens"] <= 16
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_streamed_and_whole_answers_are_the_same(api: openai.AsyncOpenAI) -> None:
    for sampling in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 5}):
        options: Any = {"model": MODEL, "messages": GERMANY, "max_tokens": 24, **sampling}
        whole = await api.chat.completions.create(**options)
        stream = await api.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
        *chunks, last = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
        assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == [
            whole.choices[0].finish_reason
        ]
        assert last.usage.prompt_tokens == whole.usage.prompt_tokens
        assert last.usage.completion_tokens == whole.usage.completion_tokens


async def test_a_batch_answers_each_row_as_if_it_were_alone(api: openai.AsyncOpenAI, url: str) -> None:
    prompts = ["The sky is", "The ocean is a place where many", "The forest is"]
    options: Any = {"model": MODEL, "max_tokens": 8, "temperature": 0}
    status, batch = await http(f"{url}/v1/completions", {**options, "batch": prompts})
    assert status == 200
    assert [choice["index"] for choice in batch["choices"]] == [0, 1, 2]
    alone = [await api.completions.create(**options, prompt=prompt) for prompt in prompts]
    assert [choice["text"] for choice in batch["choices"]] == [each.choices[0].text for each in alone]
    for field in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert batch["usage"][field] == sum(getattr(each.usage, field) for each in alone)
    streamed = ["", "", ""]
    async for chunk in await api.completions.create(**options, prompt=prompts, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [choice["text"] for choice in batch["choices"]]


async def test_token_ids_are_a_prompt(api: openai.AsyncOpenAI) -> None:
    answer = await api.completions.create(model=MODEL, prompt=[504, 5345, 314], max_tokens=4, temperature=0)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


async def test_n_with_a_seed_gives_different_and_repeatable_answers(api: openai.AsyncOpenAI) -> None:
    options: Any = {"model": MODEL, "messages": GERMANY, "max_tokens": 12, "temperature": 1.5, "seed": 3, "n": 3}
    first, second = [await api.chat.completions.create(**options) for _ in range(2)]
    texts = [choice.message.content for choice in first.choices]
    assert len(set(texts)) > 1
    assert texts == [choice.message.content for choice in second.choices]
    one = await api.chat.completions.create(**options | {"n": 1})
    assert first.usage.prompt_tokens == one.usage.prompt_tokens


async def test_stop_strings_are_not_sent(api: openai.AsyncOpenAI) -> None:
    options: Any = {"model": MODEL, "messages": GERMANY, "max_tokens": 24, "temperature": 0}
    whole = (await api.chat.completions.create(**options)).choices[0].message.content
    assert "Berlin" in whole
    stopped = (await api.chat.completions.create(**options, stop=["Berlin"])).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (whole.partition("Berlin")[0], "stop")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_longer_than_the_context(url: str, stream: bool) -> None:
    body = {"model": MODEL, "prompt": "word " * 9000, "stream": stream}
    status, answer = await http(f"{url}/v1/completions", body)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


async def test_a_model_that_is_not_there(url: str) -> None:
    status, answer = await http(f"{url}/v1/chat/completions", {"model": "llama3.1:8b", "messages": GERMANY})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert "squish pull llama3.1:8b" in answer["error"]["message"]


@asynccontextmanager
async def endless(url: str, stream: bool) -> AsyncIterator[asyncio.StreamReader]:
    """A client in the middle of a long answer, that leaves at the end of the block."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(ENDLESS | {"stream": stream}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        yield reader
    finally:
        writer.close()


async def running(runtime: Runtime, count: int) -> None:
    """Wait until that many requests run."""
    while [status.running for status in runtime.sessions.status()] != [count]:
        await asyncio.sleep(0.01)


@dataclass
class Watched:
    """What came of one generation: the steps that said something, and its end."""

    tokens: int = 0
    finished: Finished | None = None


def watch(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Count what the next generation does, from inside the server."""
    watched, generate = Watched(), runtime.sessions.generate

    def watching(request: GenerationRequest, follower: RequestFollower | None = None) -> Generation:
        generation = generate(request, follower)
        put = generation.put

        def count(event: GenerationEvent) -> None:
            watched.tokens += isinstance(event, TextDelta)
            if isinstance(event, Finished):
                watched.finished = event
            put(event)

        monkeypatch.setattr(generation, "put", count)
        return generation

    monkeypatch.setattr(runtime.sessions, "generate", watching)
    return watched


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_row(
    url: str, runtime: Runtime, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runtime.sessions.load(MODEL)
    watched = watch(runtime, monkeypatch)
    async with endless(url, stream) as reader:
        while watched.tokens < 3:
            await asyncio.sleep(0.01)
        if stream:
            await reader.readuntil(b'"text"')
        assert await http(f"{url}/health") == (200, {"status": "ok"})
    await running(runtime, 0)
    assert watched.finished is not None
    assert watched.finished.reason == "cancelled"
    assert watched.finished.usage.completion_tokens < 7000


async def test_after_its_worker_was_killed_the_next_request_works(
    url: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runtime.sessions.load(MODEL)
    watched = watch(runtime, monkeypatch)
    asked = asyncio.create_task(http(f"{url}/v1/completions", ENDLESS))
    while not watched.tokens:  # one that the worker has not begun would go to a new one
        await asyncio.sleep(0.01)

    pid = runtime.sessions.status()[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    status, answer = await asked
    assert (status, answer["error"]["type"]) == (500, "server_error")
    status, answer = await http(f"{url}/v1/chat/completions", {"model": MODEL, "messages": GERMANY, "max_tokens": 4})
    assert status == 200


async def test_an_answer_that_was_begun_is_gone_on_with(url: str) -> None:
    begun = [*GERMANY, {"role": "assistant", "content": "The capital of Germany is"}]
    body = {"model": MODEL, "messages": begun, "max_tokens": 4, "temperature": 0}
    status, answer = await http(f"{url}/v1/chat/completions", body)
    assert status == 200
    assert answer["choices"][0]["message"]["content"].startswith(" Berlin")
    status, fresh = await http(f"{url}/v1/chat/completions", body | {"add_generation_prompt": True})
    assert status == 200
    assert fresh["usage"]["prompt_tokens"] > answer["usage"]["prompt_tokens"]


async def test_as_many_tokens_as_the_context_holds(url: str) -> None:
    body = {"model": MODEL, "messages": GERMANY, "max_tokens": -1, "top_p": 0, "top_k": -1, "stop": ["", "Germany"]}
    status, answer = await http(f"{url}/v1/chat/completions", body)
    assert (status, answer["choices"][0]["finish_reason"]) == (200, "stop")
    assert answer["choices"][0]["message"]["content"] == "The capital of "
