"""A streamed response: every event, in order, and the same response whether it is streamed or whole."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from squish.api.dialect import Row
from squish.api.errors import Failure
from squish.api.responses import translate
from squish.api.responses.answers import Response
from squish.api.responses.reply import ResponseReply
from squish.api.responses.store import ResponseStore
from squish.generation import (
    Accepted,
    Finished,
    FinishReason,
    GenerationEvent,
    Message,
    Prefill,
    Queued,
    ReasoningDelta,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)

USAGE = Usage(100, 20, 60, 5)
TOOLS = [{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]}]
SAID: list[GenerationEvent] = [
    ReasoningDelta(0, "Hm"),
    ReasoningDelta(0, "."),
    TextDelta(0, "I "),
    TextDelta(0, "call."),
    ToolCallDelta(0, 0, "call_a", "n__f", ""),
    ToolCallDelta(0, 0, "call_a", None, '{"x":'),
    ToolCallDelta(0, 0, "call_a", None, "1}"),
    ToolCallDelta(0, 1, "call_b", "g", ""),
    ToolCallDelta(0, 1, "call_b", None, "{}"),
]


def replying(store: ResponseStore | None = None, **fields: Any) -> ResponseReply:
    body = json.dumps({"model": "m", "input": "Hi", "stream": True} | fields).encode()
    reply = translate.read(body, store or ResponseStore()).reply
    assert isinstance(reply, ResponseReply)
    return reply


def plain(values: Any) -> list[dict[str, Any]]:
    """The events as a client reads them, without a gap in their numbers."""
    events = json.loads(msgspec.json.encode(list(values)))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def ended(reason: FinishReason) -> Row:
    row = Row()
    row.add(Finished(0, reason, USAGE, Timings(0.1, 0.2)))
    return row


def streamed(
    reply: ResponseReply, events: list[GenerationEvent], reason: FinishReason = "stop"
) -> list[dict[str, Any]]:
    told = [said for event in [Queued(1), Accepted((100,)), Prefill(0, 1, 2), *events] for said in reply.chunks(event)]
    return plain([*told, *reply.last([ended(reason)])])


def test_every_event_of_thoughts_a_text_and_two_calls() -> None:
    events = streamed(replying(tools=TOOLS), SAID, "tool_calls")
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    final = events[-1]["response"]
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in done] == [0, 1, 2, 3]
    assert [event["item"] for event in done] == final["output"]
    for event in events:
        if "item_id" in event:
            assert event["item_id"] == final["output"][event["output_index"]]["id"]
    thought, said, first, second = final["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert said["content"] == [{"type": "output_text", "text": "I call.", "annotations": [], "logprobs": []}]
    assert (first["namespace"], first["name"], first["arguments"]) == ("n", "f", '{"x":1}')
    assert (first["call_id"], second["call_id"], second["name"]) == ("call_a", "call_b", "g")
    assert "namespace" not in second
    assert first["call_id"] != first["id"]
    assert final["usage"] == {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 0},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 120,
    }


def test_a_whole_response_is_the_last_of_a_stream() -> None:
    def without_ids(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without_ids(v) for k, v in value.items() if k not in ("id", "created_at", "completed_at")}
        return [without_ids(each) for each in value] if isinstance(value, list) else value

    row = ended("tool_calls")
    for event in SAID:
        assert isinstance(event, ReasoningDelta | TextDelta | ToolCallDelta)
        row.add(event)
    whole = json.loads(msgspec.json.encode(replying(tools=TOOLS).whole([row])))
    assert without_ids(whole) == without_ids(streamed(replying(tools=TOOLS), SAID, "tool_calls")[-1]["response"])


def test_thoughts_as_a_summary_and_sealed() -> None:
    reply = replying(reasoning={"summary": "auto"}, include=["reasoning.encrypted_content"])
    events = streamed(reply, SAID[:3])
    assert [event["type"].removeprefix("response.reasoning_summary_") for event in events[3:8]] == [
        "part.added", "text.delta", "text.delta", "text.done", "part.done",
    ]  # fmt: skip
    item = events[-1]["response"]["output"][0]
    assert (item["summary"], item["content"]) == ([{"type": "summary_text", "text": "Hm."}], [])
    again = json.dumps({"model": "m", "input": [{"role": "user", "content": "Hi"}, *events[-1]["response"]["output"]]})
    [prompt] = translate.read(again.encode(), ResponseStore()).generation.prompts
    assert prompt.messages[-1] == Message("assistant", "I ", reasoning="Hm.")  # type: ignore[union-attr]


def test_what_is_cut_short_is_incomplete() -> None:
    events = streamed(replying(max_output_tokens=4), SAID[:4], "length")
    assert events[-1]["type"] == "response.incomplete"
    final = events[-1]["response"]
    assert (final["status"], final["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["status"] for item in final["output"]] == ["completed", "incomplete"]
    assert final["completed_at"] is None


def test_an_answer_without_anything_is_an_empty_message() -> None:
    [item] = streamed(replying(), [])[-1]["response"]["output"]
    assert item["content"][0]["text"] == ""


def test_at_most_one_call() -> None:
    events = streamed(replying(parallel_tool_calls=False), SAID[4:], "tool_calls")
    assert [item["call_id"] for item in events[-1]["response"]["output"]] == ["call_a"]


def test_log_probabilities() -> None:
    token = TokenLogprob("I ", b"I ", -0.5)
    fields: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    events = streamed(replying(**fields), [TextDelta(0, "I ", (token,))])
    expected = [{"token": "I ", "logprob": -0.5, "bytes": [73, 32], "top_logprobs": []}]
    assert [event["logprobs"] for event in events if "logprobs" in event] == [expected, expected]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == expected


def test_news_while_nothing_happens_begins_with_the_beginning() -> None:
    reply = replying()
    events = plain([*reply.alive(None), *reply.alive(Queued(1)), *reply.chunks(Accepted((9,))), *reply.alive(None)])
    assert [event["type"] for event in events] == ["response.created"] + ["response.in_progress"] * 3


@pytest.mark.parametrize(
    ("code", "known"),
    [("worker_died", "server_error"), ("context_length_exceeded",) * 2, ("request_cancelled", "invalid_prompt")],
)
def test_a_failure_comes_with_what_was_said(code: str, known: str) -> None:
    reply = replying()
    told = [said for event in SAID[:5] for said in reply.chunks(event)]
    failed = plain([*told, *reply.failed(Failure(500, code, "It broke."))])[-1]
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": known, "message": "It broke."}
    assert [item["type"] for item in failed["response"]["output"]] == ["reasoning", "message"]
    assert plain(replying().failed(Failure(500, code, "x")))[0]["type"] == "response.created"


def test_what_is_kept_is_the_response_and_the_conversation_it_ended() -> None:
    store = ResponseStore()
    final = streamed(replying(store, instructions="Be brief.", tools=TOOLS), SAID, "tool_calls")[-1]["response"]
    kept = store.find(final["id"])
    assert kept is not None
    assert json.loads(msgspec.json.encode(kept.response)) == final
    calls = (ToolCall("call_a", "n__f", '{"x":1}'), ToolCall("call_b", "g", "{}"))
    turn = Message("assistant", "I call.", calls, reasoning="Hm.")
    assert kept.messages == (Message("user", "Hi"), turn)
    body = {"model": "m", "previous_response_id": final["id"], "store": False}
    body["input"] = [{"type": "function_call_output", "call_id": "call_b", "output": "ok"}]
    went_on = translate.read(json.dumps(body).encode(), store)
    [prompt] = went_on.generation.prompts
    answer = Message("tool", "ok", tool_call_id="call_b", name="g")
    assert prompt.messages == (Message("user", "Hi"), turn, answer)  # type: ignore[union-attr]
    assert isinstance(went_on.reply, ResponseReply)
    unkept = went_on.reply.whole([ended("stop")])
    assert store.find(unkept.id) is None


def kept(store: ResponseStore, text: str = "x") -> Response:
    row = ended("stop")
    row.text = text
    return replying(store).whole([row])


def test_the_oldest_responses_go_first() -> None:
    store = ResponseStore(most=2)
    ids = [kept(store).id for _ in range(4)]
    assert [store.find(id) is not None for id in ids] == [False, False, True, True]
    assert store.delete(ids[2])
    assert not store.delete(ids[2])
    small = ResponseStore(most_bytes=20_000)
    ids = [kept(small, "y" * 6_000).id for _ in range(3)]
    assert [small.find(id) is not None for id in ids] == [False, False, True]
    assert small.find(kept(small, "y" * 30_000).id) is None
    assert small.find(ids[2]) is not None
