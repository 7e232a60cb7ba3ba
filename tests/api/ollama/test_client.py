"""Programs of Ollama's own Python client, with nothing changed but the address, against the real model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from squish.api.serving.options import Options
from squish.config.settings import Settings
from squish.runtime import Runtime
from tests.api.raw_http import Server
from tests.api.scripted import ScriptedSessions, serving
from tests.conftest import MODEL
from tests.later import ollama

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one server, and so one loaded model, for all of them

GERMANY: list[Any] = [{"role": "user", "content": "What is the capital of Germany?"}]
SHORT: dict[str, Any] = {"num_predict": 8, "temperature": 0, "num_ctx": 4096}
CITY = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}}, "required": ["name"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(real_home: Path) -> AsyncIterator[Server]:
    settings = Settings.from_environment({"HOME": str(real_home), "SQUISH_OFFLINE": "1", "SQUISH_API_KEY": "right"})
    async with Runtime(settings) as runtime, serving(runtime, Options(allow_pull=True)) as address:
        yield Server(address, ScriptedSessions())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: Server) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(server.address.url, headers={"Authorization": "Bearer right"}) as api:
        yield api


async def test_the_synchronous_client(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server.address.url)
    monkeypatch.setenv("OLLAMA_API_KEY", "right")

    def program() -> tuple[list[str | None], str, str, str]:
        with ollama.Client() as api:
            names = [model.model for model in api.list().models]
            whole = api.chat(MODEL, GERMANY, options=SHORT).message.content or ""
            pieces = api.chat("smollm2:latest", GERMANY, options=SHORT, stream=True)
            text = "".join(piece.message.content or "" for piece in pieces)
            written = api.generate(MODEL, "The capital of Germany is", raw=True, options=SHORT).response or ""
            return names, whole, text, written

    names, whole, streamed, written = await asyncio.to_thread(program)
    assert MODEL in names
    assert "Berlin" in whole
    assert whole == streamed
    assert written.startswith(" ")


async def test_what_is_told_of_models_and_answers(client: ollama.AsyncClient) -> None:
    answer = await client.generate(MODEL, "What is the capital of Germany?", options=SHORT, keep_alive="10m")
    assert "Berlin" in (answer.response or "")
    assert answer.done_reason in ("stop", "length")
    assert 0 < (answer.eval_count or 0) <= 8
    assert (answer.total_duration or 0) >= (answer.eval_duration or 0) > 0
    [loaded] = [model for model in (await client.ps()).models if model.model == MODEL]
    assert loaded.context_length == 8192
    shown = await client.show(MODEL)
    assert shown.capabilities == ["completion"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.parameter_count"] == 134_515_008


async def test_a_schema_thoughts_and_log_probabilities(client: ollama.AsyncClient) -> None:
    options = SHORT | {"num_predict": 40}
    answer = await client.chat(MODEL, GERMANY, format=CITY, options=options, think=False, logprobs=True, top_logprobs=2)
    assert (answer.message.content or "").replace(" ", "").startswith('{"name":"')
    assert answer.logprobs
    assert "".join(each.token for each in answer.logprobs) == answer.message.content
    assert len(answer.logprobs[0].top_logprobs or ()) == 2


async def test_a_model_is_loaded_and_unloaded_by_nothing(client: ollama.AsyncClient) -> None:
    assert (await client.generate(MODEL, keep_alive=-1)).done_reason == "load"
    [loaded] = (await client.ps()).models
    assert loaded.expires_at is not None
    assert loaded.expires_at.year > 2200
    assert (await client.chat(MODEL, [], keep_alive=0)).done_reason == "unload"
    while (await client.ps()).models:  # its process ends
        await asyncio.sleep(0.005)


async def test_a_copy_a_pull_and_the_end_of_it(client: ollama.AsyncClient) -> None:
    await client.copy(MODEL, "mine")
    lines = [line async for line in await client.pull("mine:latest", stream=True)]
    assert lines[-1].status == "success"
    assert (await client.delete("mine")).status == "success"
    with pytest.raises(ollama.ResponseError) as missing:
        await client.show("mine")
    assert (missing.value.status_code, "not found" in missing.value.error) == (404, True)


async def test_refusals_arrive_in_words(client: ollama.AsyncClient, server: Server) -> None:
    with pytest.raises(ollama.ResponseError) as refused:
        await client.chat(MODEL, GERMANY, options={"mirostat": 2})
    assert (refused.value.status_code, "options.mirostat" in refused.value.error) == (400, True)

    def weather(city: str) -> str:
        """The weather in a city."""
        return city

    with pytest.raises(ollama.ResponseError, match="does not support tools") as refused:
        await client.chat(MODEL, GERMANY, tools=[weather])
    assert refused.value.status_code == 400
    async with ollama.AsyncClient(server.address.url, headers={"Authorization": "Bearer wrong"}) as stranger:
        with pytest.raises(ollama.ResponseError) as refused:
            await stranger.list()
    assert refused.value.status_code == 401
