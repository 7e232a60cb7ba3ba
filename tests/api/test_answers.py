"""Answers with tools, thinking and log-probabilities: whole, streamed, and as OpenAI's client reads them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from squish.config.settings import Settings
from squish.generation import Finished, Likely, ReasoningDelta, TextDelta, Timings, TokenLogprob, ToolCallDelta, Usage
from tests.api.raw_http import CHAT, Server, ask, client, scripted

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALLS = (
    ToolCallDelta(0, 0, "call_a", "weather", ""),
    ToolCallDelta(0, 0, "call_a", None, '{"city":'),
    ToolCallDelta(0, 0, "call_a", None, '"Paris"}'),
    ToolCallDelta(0, 1, "call_b", "weather", '{"city":"Rome"}'),
)
END = Finished(0, "tool_calls", Usage(7, 9, 3, 4), Timings(0.1, 0.2))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with scripted(Settings(home=tmp_path, cache_dir=tmp_path / "models")) as running:
        yield running


async def play(server: Server, *events: Any) -> None:
    script = await server.sessions.admitted.get()
    script.accept()
    script.tell(*events)


async def answered(server: Server, body: dict[str, Any], *events: Any, path: str = "/v1/chat/completions") -> Any:
    """The JSON of a whole answer made of these events."""
    _, answer = await asyncio.gather(play(server, *events), ask(server, "POST", path, body))
    assert answer.status == 200
    return json.loads(answer.body)


async def streamed(server: Server, body: dict[str, Any], *events: Any) -> list[Any]:
    """The chunks of the same as a stream, by OpenAI's client."""

    async def read() -> list[Any]:
        options: Any = CHAT | body | {"stream": True}
        async with client(server) as api:
            return [chunk async for chunk in await api.chat.completions.create(**options)]

    _, chunks = await asyncio.gather(play(server, *events), read())
    return chunks


async def test_two_calls_whole_and_streamed(server: Server) -> None:
    answer = await answered(server, CHAT | {"tools": [TOOL]}, *CALLS, END)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    calls = choice["message"]["tool_calls"]
    assert [(call["id"], call["type"], call["function"]) for call in calls] == [
        ("call_a", "function", {"name": "weather", "arguments": '{"city":"Paris"}'}),
        ("call_b", "function", {"name": "weather", "arguments": '{"city":"Rome"}'}),
    ]
    chunks = await streamed(server, {"tools": [TOOL]}, *CALLS, END)
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [(d.index, d.id, d.function.name) for d in deltas] == [
        (0, "call_a", "weather"), (0, None, None), (0, None, None), (1, "call_b", "weather")
    ]  # fmt: skip
    assert "".join(d.function.arguments for d in deltas if d.index == 0) == '{"city":"Paris"}'
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_without_parallel_calls_only_the_first_counts(server: Server) -> None:
    body = {"tools": [TOOL], "parallel_tool_calls": False}
    answer = await answered(server, CHAT | body, *CALLS, END)
    assert [call["id"] for call in answer["choices"][0]["message"]["tool_calls"]] == ["call_a"]
    chunks = await streamed(server, body, *CALLS, END)
    assert {call.index for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []} == {0}


async def test_the_openai_client_puts_streamed_calls_together(server: Server) -> None:
    async def read() -> Any:
        options: Any = CHAT | {"tools": [TOOL]}
        async with client(server) as api, api.chat.completions.stream(**options) as stream:
            return await stream.get_final_completion()

    _, answer = await asyncio.gather(play(server, *CALLS, END), read())
    calls = answer.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Paris", "Rome"]


async def test_thinking_is_kept_apart_from_the_answer(server: Server) -> None:
    events = (ReasoningDelta(0, "Hm"), ReasoningDelta(0, "m."), TextDelta(0, "Yes."), END)
    answer = await answered(server, CHAT, *events)
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hmm.", "Yes.")
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 4}
    chunks = await streamed(server, {}, *events)
    deltas = [chunk.choices[0].delta.model_dump() for chunk in chunks]
    assert "".join(d.get("reasoning_content") or "" for d in deltas) == "Hmm."
    assert "".join(d.get("content") or "" for d in deltas) == "Yes."
    plain = await answered(server, CHAT, TextDelta(0, "Yes."), END)
    assert plain["choices"][0]["message"].keys() == {"role", "content", "refusal"}


HALVES = (
    TokenLogprob("a", b"a", -0.5, (Likely("a", b"a", -0.5), Likely("b", b"b", -1.5))),
    TokenLogprob("\ufffd", b"\xc3", -0.25),
    TokenLogprob("\ufffd", b"\xa9", -0.125),
    TokenLogprob("!", b"!", -1.0),
)


async def test_log_probabilities_of_a_chat(server: Server) -> None:
    events = (TextDelta(0, "a", HALVES[:1]), TextDelta(0, "é!", HALVES[1:]), END)
    body = {"logprobs": True, "top_logprobs": 2}
    found = (await answered(server, CHAT | body, *events))["choices"][0]["logprobs"]
    assert found["refusal"] is None
    assert [(each["token"], each["bytes"], each["logprob"]) for each in found["content"][:2]] == [
        ("a", [97], -0.5), ("\ufffd", [0xC3], -0.25)
    ]  # fmt: skip
    assert [other["token"] for other in found["content"][0]["top_logprobs"]] == ["a", "b"]
    chunks = await streamed(server, body, *events)
    pieces = [chunk.choices[0].logprobs.content for chunk in chunks if chunk.choices[0].logprobs]
    assert [[each.logprob for each in piece] for piece in pieces] == [[-0.5], [-0.25, -0.125, -1.0]]


async def test_log_probabilities_of_a_completion(server: Server) -> None:
    events = (TextDelta(0, "a", HALVES[:1]), TextDelta(0, "é!", HALVES[1:]), END)
    body = {"model": "m", "prompt": "x", "logprobs": 2}
    found = (await answered(server, body, *events, path="/v1/completions"))["choices"][0]["logprobs"]
    assert found["tokens"] == ["a", "\ufffd", "\ufffd", "!"]
    assert found["token_logprobs"] == [-0.5, -0.25, -0.125, -1.0]
    assert found["text_offset"] == [0, 1, 1, 2]
    assert found["top_logprobs"][0] == {"a": -0.5, "b": -1.5}
    _, answer = await asyncio.gather(
        play(server, *events), ask(server, "POST", "/v1/completions", body | {"stream": True})
    )
    lines = [line[6:] for line in answer.body.decode().splitlines() if line.startswith('data: {"id"')]
    offsets = [json.loads(line)["choices"][0]["logprobs"]["text_offset"] for line in lines[:2]]
    assert offsets == [[0], [1, 1, 2]]
