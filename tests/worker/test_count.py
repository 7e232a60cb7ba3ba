"""Counting tokens with the model's own template and tokenizer, for the context meter."""

from __future__ import annotations

import pytest

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
