"""Ordinary programs of ordinary clients, with nothing changed but base_url, against the real model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import BaseModel, Field, SecretStr

from squish.config.settings import Settings
from squish.runtime import Runtime
from tests.api.raw_http import Answer, Server, ask, connected, request_bytes
from tests.api.scripted import ScriptedSessions, serving
from tests.conftest import MODEL, UNENDING
from tests.later import openai

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one server, and so one loaded model, for all of them

GERMANY: list[Any] = [{"role": "user", "content": "What is the capital of Germany?"}]
SHORT: dict[str, Any] = {"model": MODEL, "max_tokens": 8, "temperature": 0}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(real_home: Path) -> AsyncIterator[Server]:
    environment = {
        "HOME": str(real_home),
        "SQUISH_OFFLINE": "1",
        "SQUISH_MAX_QUEUE": "8",
        "SQUISH_MAX_CONCURRENCY": "4",
    }
    async with Runtime(Settings.from_environment(environment)) as runtime, serving(runtime) as address:
        yield Server(address, ScriptedSessions())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.address.url}/v1", api_key="any", max_retries=0) as client:
        yield client


async def test_the_synchronous_client(server: Server) -> None:
    def program() -> tuple[list[str], str, str]:
        with openai.OpenAI(base_url=f"{server.address.url}/v1", api_key="any") as client:
            models = [model.id for model in client.models.list()]
            answer = client.chat.completions.create(messages=GERMANY, **SHORT)
            pieces = client.chat.completions.create(messages=GERMANY, stream=True, **SHORT)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
            return models, answer.choices[0].message.content or "", text

    models, whole, streamed = await asyncio.to_thread(program)
    assert models == [MODEL]
    assert whole == streamed
    assert "Berlin" in whole


@asynccontextmanager
async def langchain(server: Server, tokens: int) -> AsyncIterator[Any]:
    """A model of LangChain, whose connections are closed at the end; its own are kept until the process ends."""
    from langchain_openai import ChatOpenAI  # seconds, in each process that collects tests

    async with httpx.AsyncClient() as connections:
        yield ChatOpenAI(
            base_url=f"{server.address.url}/v1", api_key=SecretStr("any"), model=MODEL, temperature=0, max_retries=0,
            max_completion_tokens=tokens, http_async_client=connections,
        )  # fmt: skip


async def test_langchain(server: Server) -> None:
    question = "What is the capital of Germany?"
    async with langchain(server, 8) as model:
        whole = await model.ainvoke(question)
        assert "Berlin" in whole.text
        assert whole.usage_metadata is not None
        assert 0 < whole.usage_metadata["output_tokens"] <= 8
        assert "".join([chunk.text async for chunk in model.astream(question)]) == whole.text


class City(BaseModel):
    name: str = Field(max_length=20)
    inhabitants: int = Field(ge=0, le=99_999_999)


async def test_an_answer_in_a_schema(api: openai.AsyncOpenAI, server: Server) -> None:
    parsed = await api.chat.completions.parse(
        model=MODEL, messages=GERMANY, temperature=0, max_tokens=80, response_format=City
    )
    assert isinstance(parsed.choices[0].message.parsed, City)
    async with langchain(server, 80) as model:
        found = await model.with_structured_output(City, method="json_schema").ainvoke("Describe Berlin.")
    assert isinstance(found, City)


async def test_responses_whole_streamed_and_gone_on_with(api: openai.AsyncOpenAI) -> None:
    options: Any = {"model": MODEL, "temperature": 0, "max_output_tokens": 8}
    whole = await api.responses.create(input="What is the capital of Germany?", **options)
    assert "Berlin" in whole.output_text
    assert whole.usage is not None
    async with api.responses.stream(input="What is the capital of Germany?", **options) as stream:
        text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
    assert text == whole.output_text
    second = await api.responses.create(input="And of France?", previous_response_id=whole.id, **options)
    assert second.usage is not None
    assert second.usage.input_tokens > whole.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens >= whole.usage.input_tokens - 1
    assert (await api.responses.retrieve(whole.id)).output_text == whole.output_text
    await api.responses.delete(whole.id)
    with pytest.raises(openai.NotFoundError):
        await api.responses.retrieve(whole.id)


async def test_a_response_in_a_schema(api: openai.AsyncOpenAI) -> None:
    options: Any = {"model": MODEL, "temperature": 0, "max_output_tokens": 80, "text_format": City}
    parsed = await api.responses.parse(input="Describe Berlin.", **options)
    assert isinstance(parsed.output_parsed, City)
    async with api.responses.stream(input="Describe Berlin.", **options) as stream:
        final = await stream.get_final_response()
    assert final.output_parsed == parsed.output_parsed


async def test_what_codex_warms_a_model_up_with(server: Server) -> None:
    """As its LM Studio provider does: codex --oss."""
    warm = await ask(server, "POST", "/v1/responses", {"model": MODEL, "input": "", "max_output_tokens": 1})
    assert (warm.status, json.loads(warm.body)["status"]) == (200, "incomplete")


async def test_json_objects_and_expressions(api: openai.AsyncOpenAI) -> None:
    options: Any = {"model": MODEL, "messages": GERMANY, "seed": 1, "max_tokens": 60}
    regex = {"type": "regex", "regex": "[a-z]{3} [0-9]{4}"}
    answer = await api.chat.completions.create(**options, extra_body={"response_format": regex})
    assert len(answer.choices[0].message.content or "") == 8
    with pytest.raises(openai.BadRequestError) as refused:
        await api.chat.completions.create(**options, extra_body={"response_format": {"type": "regex", "regex": "(("}})
    assert refused.value.param == "response_format.regex"


async def test_log_probabilities_belong_to_the_text(api: openai.AsyncOpenAI) -> None:
    answer = await api.chat.completions.create(messages=GERMANY, logprobs=True, top_logprobs=2, **SHORT)
    choice = answer.choices[0]
    assert choice.logprobs is not None
    content = choice.logprobs.content or []
    assert b"".join(bytes(each.bytes or ()) for each in content).decode() == choice.message.content
    assert all(each.top_logprobs[0].token == each.token and len(each.top_logprobs) == 2 for each in content)
    plain = await api.completions.create(prompt="The sky is", logprobs=1, **SHORT)
    assert plain.choices[0].logprobs is not None
    offsets = plain.choices[0].logprobs.text_offset or []
    assert "".join(plain.choices[0].logprobs.tokens or ()) == plain.choices[0].text
    assert offsets == sorted(offsets)


async def test_a_bias_and_a_penalty_change_the_answer(api: openai.AsyncOpenAI) -> None:
    biased = await api.completions.create(prompt="The sky is", logit_bias={"28": 100}, **SHORT | {"max_tokens": 3})
    assert len(set(biased.choices[0].text)) == 1
    penalized = await api.completions.create(
        prompt="a a a a a a a a", logit_bias={"28": 8}, frequency_penalty=2, presence_penalty=2, **SHORT
    )
    assert len(set(penalized.choices[0].text)) > 1


async def test_tools_for_a_model_that_has_none_are_refused_by_name(api: openai.AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    with pytest.raises(openai.BadRequestError) as refused:
        await api.chat.completions.create(messages=GERMANY, tools=[tool], **SHORT)
    assert refused.value.param == "tools"


@pytest.mark.long
async def test_64_requests_at_once_on_a_queue_of_8(server: Server) -> None:
    endless = SHORT | {"prompt": "1, 2,", "max_tokens": 7000, "logit_bias": dict(UNENDING), "stream": True}
    body = SHORT | {"prompt": "The sky is", "max_tokens": 6}
    async with AsyncExitStack() as busy:
        for _ in range(4):  # as many as run at the same time: what comes now waits, however fast the machine is
            start = request_bytes("POST", "/v1/completions", endless)
            reader, _ = await busy.enter_async_context(connected(server, start))
            await reader.readuntil(b'"text"')
        asked = [asyncio.create_task(ask(server, "POST", "/v1/completions", body)) for _ in range(64)]
        while sum(each.done() for each in asked) < 64 - 8:
            assert (await ask(server, "GET", "/health")).status == 200
    answers: list[Answer] = await asyncio.gather(*asked)
    done = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status == 429]
    assert (len(done), len(refused)) == (8, 64 - 8)
    assert len({json.loads(answer.body)["choices"][0]["text"] for answer in done}) == 1
    for answer in refused:
        assert (answer.error["code"], int(answer.headers["retry-after"]) > 0) == ("rate_limit_exceeded", True)
