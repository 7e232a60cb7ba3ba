"""Answers of the Messages API: every event in its order, and the same answer whether it is streamed or whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from squish.api.anthropic import translate
from squish.api.anthropic.errors import error_body
from squish.api.dialect import Row
from squish.api.errors import Failure
from squish.generation import (
    Accepted,
    Finished,
    FinishReason,
    GenerationEvent,
    Loading,
    Prefill,
    Preparing,
    Queued,
    ReasoningDelta,
    TextDelta,
    Timings,
    ToolCallDelta,
    Usage,
)

if TYPE_CHECKING:
    from anthropic.types import RawMessageStreamEvent
    from pydantic import TypeAdapter

USAGE = Usage(100, 20, 60, 5)
THOUGHTS: list[GenerationEvent] = [ReasoningDelta(0, "Hm"), ReasoningDelta(0, ".")]
TEXT: list[GenerationEvent] = [TextDelta(0, "I "), TextDelta(0, ""), TextDelta(0, "call.")]
CALLS: list[GenerationEvent] = [
    ToolCallDelta(0, 0, "call_a", "f", ""),
    ToolCallDelta(0, 0, "call_a", None, '{"x":'),
    ToolCallDelta(0, 0, "call_a", None, "1}"),
    ToolCallDelta(0, 1, "call_b", "g", ""),
    ToolCallDelta(0, 1, "call_b", None, "{}"),
]


@cache
def client() -> tuple[Callable[..., Any], TypeAdapter[RawMessageStreamEvent]]:
    """How Anthropic's own client adds an event to a message, and how it reads one. It takes seconds to import."""
    from anthropic.lib.streaming._messages import accumulate_event
    from anthropic.types import RawMessageStreamEvent
    from pydantic import TypeAdapter

    return accumulate_event, TypeAdapter(RawMessageStreamEvent)


def reply(**fields: Any) -> Any:
    body = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]} | fields
    return translate.read_messages(json.dumps(body).encode()).reply


def row(events: list[GenerationEvent], reason: FinishReason, usage: Usage = USAGE, stop: str | None = None) -> Row:
    found = Row()
    for event in [*events, Finished(0, reason, usage, Timings(0.1, 0.2), stop)]:
        assert not isinstance(event, Queued | Loading | Preparing | Accepted | Prefill)
        found.add(event)
    return found


def streamed(events: list[GenerationEvent], reason: FinishReason = "stop", **fields: Any) -> list[dict[str, Any]]:
    """What a stream says, as JSON; each event is named by its type."""
    said = reply(**fields)
    before = [Queued(1), Loading(), Preparing(), Accepted((100,)), Prefill(0, 50, 100)]
    values = [value for event in [*before, *events] for value in said.chunks(event)]
    values += said.last([row(events, reason)])
    texts = [said.frames.data(value).decode() for value in values]
    found = [json.loads(text.partition("data: ")[2]) for text in texts]
    assert [text.partition("\n")[0] for text in texts] == [f"event: {value['type']}" for value in found]
    return found


def accumulated(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What Anthropic's own client makes of the events."""
    accumulate, read = client()
    message = None
    buffers: dict[int, bytes] = {}
    for event in events:
        message = accumulate(event=read.validate_python(event), current_snapshot=message, json_bufs=buffers)
    assert message is not None
    return message.to_dict(exclude_unset=False)


def test_every_event_of_thoughts_a_text_and_two_calls() -> None:
    events = streamed([*THOUGHTS, *TEXT, *CALLS], "tool_calls")
    shown = [
        (event["type"], event.get("index"), event.get("content_block") or event.get("delta"))
        for event in events
        if event["type"] != "message_start"
    ]
    assert shown == [
        ("content_block_start", 0, {"type": "thinking", "thinking": "", "signature": ""}),
        ("content_block_delta", 0, {"type": "thinking_delta", "thinking": "Hm"}),
        ("content_block_delta", 0, {"type": "thinking_delta", "thinking": "."}),
        ("content_block_delta", 0, {"type": "signature_delta", "signature": ""}),
        ("content_block_stop", 0, None),
        ("content_block_start", 1, {"type": "text", "text": ""}),
        ("content_block_delta", 1, {"type": "text_delta", "text": "I "}),
        ("content_block_delta", 1, {"type": "text_delta", "text": "call."}),
        ("content_block_stop", 1, None),
        ("content_block_start", 2, {"type": "tool_use", "id": "call_a", "name": "f", "input": {}}),
        ("content_block_delta", 2, {"type": "input_json_delta", "partial_json": ""}),
        ("content_block_delta", 2, {"type": "input_json_delta", "partial_json": '{"x":'}),
        ("content_block_delta", 2, {"type": "input_json_delta", "partial_json": "1}"}),
        ("content_block_stop", 2, None),
        ("content_block_start", 3, {"type": "tool_use", "id": "call_b", "name": "g", "input": {}}),
        ("content_block_delta", 3, {"type": "input_json_delta", "partial_json": ""}),
        ("content_block_delta", 3, {"type": "input_json_delta", "partial_json": "{}"}),
        ("content_block_stop", 3, None),
        ("message_delta", None, {"stop_reason": "tool_use", "stop_sequence": None}),
        ("message_stop", None, None),
    ]
    assert events[0]["type"] == "message_start"
    begun = events[0]["message"]
    assert (begun["content"], begun["stop_reason"], begun["usage"]["input_tokens"]) == ([], None, 100)
    assert sum(begun["usage"][name] for name in ("cache_read_input_tokens", "cache_creation_input_tokens")) == 0


@pytest.mark.parametrize("events", [[], TEXT, THOUGHTS, CALLS, [*THOUGHTS, *TEXT], [*TEXT, *CALLS]], ids=len)
def test_what_a_client_puts_together_is_the_whole_answer(events: list[GenerationEvent]) -> None:
    reason: FinishReason = "tool_calls" if events and events[-1] is CALLS[-1] else "stop"
    found = accumulated(streamed(events, reason))
    whole = json.loads(msgspec.json.encode(reply().whole([row(events, reason)])))
    del found["id"], whole["id"]
    assert {name: found[name] for name in whole if name not in ("content", "usage")} == {
        name: value for name, value in whole.items() if name not in ("content", "usage")
    }
    for block, other in zip(found["content"], whole["content"], strict=True):
        assert {name: block[name] for name in other} == other
    assert {name: found["usage"][name] for name in whole["usage"]} == whole["usage"]


def test_what_was_known_and_what_was_computed_are_the_prompt() -> None:
    usage = streamed(TEXT)[-2]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (
        40,
        60,
        0,
    )
    assert (usage["output_tokens"], usage["output_tokens_details"]) == (20, {"thinking_tokens": 5})


@pytest.mark.parametrize(
    ("reason", "stop", "said"),
    [
        ("stop", None, "end_turn"),
        ("stop", "END", "stop_sequence"),
        ("length", None, "max_tokens"),
        ("context", None, "model_context_window_exceeded"),
        ("cancelled", None, "max_tokens"),
        ("tool_calls", None, "tool_use"),
    ],
)
def test_why_it_ended(reason: FinishReason, stop: str | None, said: str) -> None:
    whole = reply().whole([row(TEXT, reason, Usage(100, 20), stop)])
    assert (whole.stop_reason, whole.stop_sequence) == (said, stop)


def test_one_call_where_only_one_is_wanted() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    tools = [{"name": name, "input_schema": {"type": "object"}} for name in "fg"]
    events = streamed(CALLS, "tool_calls", tools=tools, tool_choice=choice)
    assert [e["content_block"]["name"] for e in events if e["type"] == "content_block_start"] == ["f"]
    whole = reply(tools=tools, tool_choice=choice).whole([row(CALLS, "tool_calls")])
    assert [block.name for block in whole.content] == ["f"]


def test_thoughts_that_are_left_out_are_empty_blocks() -> None:
    omitted = {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}
    found = accumulated(streamed([*THOUGHTS, *TEXT], thinking=omitted))
    assert [block.get("thinking", block.get("text")) for block in found["content"]] == ["", "I call."]
    whole = reply(thinking=omitted).whole([row([*THOUGHTS, *TEXT], "stop")])
    assert whole.content[0].thinking == ""


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_value", "invalid_request_error"),
        (401, "invalid_api_key", "authentication_error"),
        (403, "origin_not_allowed", "permission_error"),
        (404, "model_not_found", "not_found_error"),
        (405, "method_not_allowed", "invalid_request_error"),
        (413, "request_too_large", "request_too_large"),
        (429, "rate_limit_exceeded", "rate_limit_error"),
        (500, "worker_died", "api_error"),
        (503, "server_ending", "overloaded_error"),
        (503, "request_cancelled", "api_error"),
    ],
)
def test_errors_have_anthropics_types(status: int, code: str, kind: str) -> None:
    found = error_body(Failure(status, code, "No."), "req_1")
    assert (found.error.type, found.error.message, found.request_id) == (kind, "No.", "req_1")


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_look_for() -> None:
    message = error_body(Failure(400, "context_length_exceeded", "It has 9 tokens."), "req_1").error.message
    assert message == "prompt is too long: It has 9 tokens."
