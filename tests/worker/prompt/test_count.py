"""Counting tokens with the model's own template and tokenizer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from squish.config.settings import Settings
from squish.errors import InvalidInput
from squish.generation import Accepted, ChatPrompt, GenerationRequest, Message, ResponseFormat, SamplingParams
from squish.runtime import Runtime
from tests.conftest import MODEL


def chat(*texts: str) -> ChatPrompt:
    return ChatPrompt(tuple(Message("user", text) for text in texts))


async def test_a_count_is_what_a_request_then_has(runtime: Runtime) -> None:
    assert await runtime.sessions.count(MODEL, (chat("hi"),)) is None, "a count loads nothing"
    context = (await runtime.sessions.load(MODEL)).context_length
    short, long = await runtime.sessions.count(MODEL, (chat("hi"), chat("hi " * context))) or (0, 0)
    assert long > context, "what is too long is counted as well"

    request = GenerationRequest(MODEL, (chat("hi"),), SamplingParams(max_tokens=1))
    async with runtime.sessions.generate(request) as generation:
        accepted = [event async for event in generation if isinstance(event, Accepted)]
    assert accepted == [Accepted((short,))]

    with pytest.raises(InvalidInput):
        await runtime.sessions.count(MODEL, (ChatPrompt(()),))
    assert await runtime.sessions.count(MODEL, (chat("hi"),)) == (short,)


async def test_a_count_can_load_the_model_which_then_goes_when_it_is_idle(real_settings: Settings) -> None:
    async with Runtime(replace(real_settings, keep_alive=0)) as runtime:
        one, both = await asyncio.gather(
            runtime.sessions.count_loading(MODEL, (chat("hi"),)),
            runtime.sessions.count_loading(MODEL, (chat("hi"), chat("hi", "hi"))),
        )
        assert 0 < one[0] == both[0] < both[1]
        while runtime.sessions.status():
            await asyncio.sleep(0.01)


async def test_a_format_is_looked_at_before_anything_is_asked(runtime: Runtime) -> None:
    pattern, none = (ResponseFormat("regex", text, "response_format") for text in ("[0-9]+", "a(?=b)"))
    await runtime.sessions.require_holdable(MODEL, none)
    assert runtime.sessions.status() == [], "nothing is loaded for it"
    await runtime.sessions.load(MODEL)
    await runtime.sessions.require_holdable(MODEL, pattern)
    schema = ResponseFormat("json_schema", '{"type": "nothing"}', "response_format")
    for wanted, why in ((none, "look-around"), (schema, "schema")):
        with pytest.raises(InvalidInput, match=f"cannot be used: .*{why}|{why} cannot be used") as raised:
            await runtime.sessions.require_holdable(MODEL, wanted)
        assert raised.value.param == "response_format"
