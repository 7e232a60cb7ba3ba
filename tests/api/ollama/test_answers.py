"""Events as Ollama's answers, whole and in lines."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from squish.api.dialect import Row, RowEvent
from squish.api.errors import Failure
from squish.api.ollama.errors import error_line
from squish.api.ollama.replies import LineReply, chat_line, text_line
from squish.generation import (
    Accepted,
    Finished,
    Likely,
    ReasoningDelta,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

END = Finished(0, "stop", Usage(9, 4, 3), Timings(0.25, 0.5, 2.0))
CALLS = (
    ToolCallDelta(0, 0, "call_a", "weather", ""),
    ToolCallDelta(0, 0, "call_a", None, '{"city":'),
    ToolCallDelta(0, 0, "call_a", None, '"Paris"}'),
    ToolCallDelta(0, 1, "call_b", "now", ""),
)
TIMES = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def plain(answer: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(msgspec.json.encode(answer))
    return found


def streamed(*events: Any, line: Any = chat_line) -> list[dict[str, Any]]:
    reply = LineReply("m:latest", line)
    return [plain(chunk) for event in events for chunk in reply.chunks(event)]


def whole(*events: RowEvent, line: Any = chat_line) -> dict[str, Any]:
    row = Row()
    for event in events:
        row.add(event)
    return plain(LineReply("m:latest", line).whole([row]))


def test_a_chat_in_lines() -> None:
    first, thought, last = streamed(Accepted((9,)), TextDelta(0, "Hi"), ReasoningDelta(0, "Hm."), END)
    assert first.pop("created_at").endswith("Z")
    assert first == {"model": "m:latest", "done": False, "message": {"role": "assistant", "content": "Hi"}}
    assert thought["message"] == {"role": "assistant", "content": "", "thinking": "Hm."}
    assert (last["done"], last["done_reason"], last["message"]) == (True, "stop", {"role": "assistant", "content": ""})
    assert (last["prompt_eval_count"], last["eval_count"]) == (9, 4)


@pytest.mark.parametrize("line", [chat_line, text_line])
def test_durations_are_whole_nanoseconds(line: Any) -> None:
    for answer in (whole(TextDelta(0, "Hi"), END, line=line), streamed(END, line=line)[-1]):
        assert all(type(answer[each]) is int for each in TIMES)
        assert answer["load_duration"] == 2_000_000_000
        assert (answer["prompt_eval_duration"], answer["eval_duration"]) == (250_000_000, 500_000_000)


def test_a_text_whole_and_in_lines() -> None:
    events = (ReasoningDelta(0, "Hm."), TextDelta(0, "Hi"), TextDelta(0, " you"), END)
    answer = whole(*events, line=text_line)
    assert (answer["response"], answer["thinking"], answer["done"]) == ("Hi you", "Hm.", True)
    lines = streamed(*events, line=text_line)
    assert [line["response"] for line in lines] == ["", "Hi", " you", ""]
    assert "message" not in answer


def test_calls_come_complete_and_with_objects() -> None:
    expected = [
        {"id": "call_a", "function": {"index": 0, "name": "weather", "arguments": {"city": "Paris"}}},
        {"id": "call_b", "function": {"index": 1, "name": "now", "arguments": {}}},
    ]
    end = Finished(0, "tool_calls", Usage(9, 4), Timings(0.1, 0.2))
    lines = streamed(*CALLS, end)
    assert [line["message"].get("tool_calls") for line in lines] == [expected[:1], expected[1:], None]
    answer = whole(*CALLS, end)
    assert answer["message"]["tool_calls"] == expected
    assert answer["done_reason"] == lines[-1]["done_reason"] == "stop"


def test_a_call_that_is_cut_off_is_text() -> None:
    end = Finished(0, "length", Usage(9, 4), Timings(0.1, 0.2))
    for message in (whole(*CALLS[:2], end)["message"], streamed(*CALLS[:2], end)[0]["message"]):
        assert message["content"] == '{"name": "weather", "arguments": {"city":'
        assert "tool_calls" not in message


def test_log_probabilities() -> None:
    token = TokenLogprob("Hi", b"Hi", -0.5, (Likely("Hi", b"Hi", -0.5), Likely("Yo", b"Yo", -2.0)))
    [line] = streamed(TextDelta(0, "Hi", (token,)))
    expected = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    other = {"token": "Yo", "logprob": -2.0, "bytes": [89, 111]}
    assert line["logprobs"] == [expected | {"top_logprobs": [expected, other]}]
    assert whole(TextDelta(0, "Hi", (token,)), END)["logprobs"] == line["logprobs"]


def test_a_silence_is_an_empty_line_and_a_failure_the_last() -> None:
    reply = LineReply("m", chat_line)
    [alive] = reply.alive(None)
    assert plain(alive)["message"]["content"] == ""
    assert not plain(alive)["done"]
    [failed] = reply.failed(Failure(500, "worker_died", "It died."))
    assert plain(failed) == {"error": "It died."}
    advised = error_line(Failure(400, "invalid_value", "It always thinks. Use reasoning_effort: low."))
    assert advised.error == 'It always thinks. Use think: "low".'
    missing = error_line(Failure(404, "model_not_found", "x is not installed."))
    assert missing.error == "model not found: x is not installed."


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_nothing_to_answer(reason: Any) -> None:
    answer = plain(LineReply("m", chat_line).kept(reason))
    assert (answer["done"], answer["done_reason"], answer["message"]["content"]) == (True, reason, "")
    assert "eval_count" not in answer
