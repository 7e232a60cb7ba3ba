"""Ordinary programs of Anthropic's own client, with nothing changed but base_url, against the real model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import pytest_asyncio

from squish.config.settings import Settings
from squish.runtime import Runtime
from tests.api.scripted import serving
from tests.conftest import MODEL, clean_environment

if TYPE_CHECKING:  # the client takes seconds to import, in every process that collects tests
    import anthropic

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one server, and so one loaded model, for all of them

GERMANY: list[Any] = [{"role": "user", "content": "What is the capital of Germany?"}]
GREEDY: dict[str, Any] = {"model": MODEL, "max_tokens": 12, "extra_body": {"temperature": 0}}
WEATHER: Any = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"warm": {"type": "boolean"}}, "required": ["warm"]},
    "strict": True,
}
CALL: dict[str, Any] = {"tools": [WEATHER], "tool_choice": {"type": "any"}} | GREEDY | {"max_tokens": 64}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tool_home: Path) -> AsyncIterator[str]:
    settings = Settings.from_environment(clean_environment(tool_home) | {"SQUISH_OFFLINE": "1"})
    async with Runtime(settings) as runtime, serving(runtime) as address:
        yield address.url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    import anthropic

    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as client:
        yield client


@pytest.mark.long
async def test_the_synchronous_client(url: str) -> None:
    import anthropic

    def program() -> tuple[int, int, str, str]:
        with anthropic.Anthropic(base_url=url, auth_token="any") as client:
            counted = client.beta.messages.count_tokens(model=MODEL, messages=GERMANY).input_tokens  # loads the model
            whole = client.messages.create(messages=GERMANY, **GREEDY)
            with client.messages.stream(messages=GERMANY, **GREEDY) as stream:
                text = "".join(stream.text_stream)
                final = stream.get_final_message()
            assert final.stop_reason == whole.stop_reason
            assert final.usage.output_tokens == whole.usage.output_tokens
            usage = final.usage
            prompt = usage.input_tokens + (usage.cache_read_input_tokens or 0)
            assert prompt == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
            [block] = whole.content
            assert block.type == "text"
            return counted, prompt, block.text, text

    counted, prompt, whole, streamed = await asyncio.to_thread(program)
    assert counted == prompt > 0
    assert whole == streamed
    assert "Berlin" in whole


async def test_models_in_the_clients_own_shape(api: anthropic.AsyncAnthropic) -> None:
    from anthropic import NotFoundError

    [model] = [each async for each in api.models.list()]
    assert (model.id, model.type, model.max_input_tokens) == (MODEL, "model", 8192)
    assert model == await api.models.retrieve(MODEL)
    with pytest.raises(NotFoundError):
        await api.models.retrieve("nothing:1b")


async def test_a_prefill_ended_by_a_stop_sequence(api: anthropic.AsyncAnthropic) -> None:
    begun = [*GERMANY, {"role": "assistant", "content": "The capital of Germany is"}]
    answer = await api.beta.messages.create(messages=begun, stop_sequences=["Paris", "Berlin"], **GREEDY)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "Berlin")
    assert "capital" not in "".join(block.text for block in answer.content if block.type == "text")


async def test_a_call_and_its_result(api: anthropic.AsyncAnthropic) -> None:
    async with api.messages.stream(messages=GERMANY, **CALL) as stream:
        pieces = [event.partial_json async for event in stream if event.type == "input_json"]
        called = await stream.get_final_message()
    [block] = called.content
    assert block.type == "tool_use"
    assert (called.stop_reason, block.name, set(block.input)) == ("tool_use", "weather", {"warm"})
    assert "".join(pieces)
    result = {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "It is."}]}
    messages: list[Any] = [
        *GERMANY,
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]},
    ]
    answer = await api.messages.create(messages=messages, tools=[WEATHER], **GREEDY)
    assert answer.usage.cache_read_input_tokens
    assert answer.content[0].type == "text"


async def test_an_answer_in_a_schema(api: anthropic.AsyncAnthropic) -> None:
    from pydantic import create_model

    Town = create_model("Town", name=Literal["Berlin", "Hamburg"], large=bool)
    answer = await api.messages.parse(messages=GERMANY, output_format=Town, **GREEDY | {"max_tokens": 80})
    assert isinstance(answer.parsed_output, Town)


async def test_errors_are_the_clients_own(api: anthropic.AsyncAnthropic, url: str) -> None:
    import anthropic

    with pytest.raises(anthropic.NotFoundError) as missing:
        await api.messages.create(messages=GERMANY, **GREEDY | {"model": "nothing:1b"})
    assert missing.value.request_id
    assert "squish pull nothing:1b" in missing.value.message
    with pytest.raises(anthropic.NotFoundError):
        await api.messages.count_tokens(model="nothing:1b", messages=GERMANY)
    with pytest.raises(anthropic.BadRequestError, match=r"stop_sequences"):
        await api.messages.create(messages=GERMANY, stop_sequences=["x"] * 65, **GREEDY)
    async with anthropic.AsyncAnthropic(base_url=f"{url}/v1", api_key="any", max_retries=0) as doubled:
        with pytest.raises(anthropic.NotFoundError):
            await doubled.messages.create(messages=GERMANY, **GREEDY)


RULES = "\n".join(f"Rule {i}: answer question number {i} in {i + 2} words." for i in range(50))


def turn(number: int, messages: list[Any]) -> dict[str, Any]:
    """A request as Claude Code sends it: its first block of the system is another one each time."""
    billing = f"x-anthropic-billing-header: cc_version=2.1.9; cc_entrypoint=cli; cch={number:05x};"
    system = [billing, "You are an agent that writes programs.", RULES]
    blocks = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}} for text in system]
    return GREEDY | {
        "system": blocks, "messages": messages, "tools": [WEATHER], "metadata": {"user_id": "u"},
        "betas": ["context-management-2025-06-27"], "context_management": {"edits": []},
    }  # fmt: skip


@pytest.mark.long
async def test_a_second_turn_computes_only_what_is_new(api: anthropic.AsyncAnthropic) -> None:
    first = await api.beta.messages.create(**turn(1, GERMANY))
    said = [{"role": "assistant", "content": first.content}, {"role": "system", "content": "Be quick."}]
    second = await api.beta.messages.create(**turn(2, [*GERMANY, *said, {"role": "user", "content": "And France?"}]))
    prompt = second.usage.input_tokens + (second.usage.cache_read_input_tokens or 0)
    assert prompt > 800
    assert second.usage.input_tokens < 0.05 * prompt
    assert prompt > first.usage.input_tokens + (first.usage.cache_read_input_tokens or 0)
