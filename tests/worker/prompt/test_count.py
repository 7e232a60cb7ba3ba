"""Counting tokens with the model's own template and tokenizer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from squish.config.settings import Settings
from squish.errors import InvalidInput
from squish.generation import Accepted, ChatPrompt, GenerationRequest, Message, SamplingParams
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
