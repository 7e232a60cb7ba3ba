"""What is made of addresses, of requests for several kinds of servers, and of what they stream."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from squish.errors import InvalidInput, RemoteError
from squish.generation import (
    Accepted,
    ChatPrompt,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Message,
    Prefill,
    ReasoningDelta,
    ResponseFormat,
    SamplingParams,
    TextDelta,
    Timings,
    Tool,
    ToolCallDelta,
)
from squish.remote import fields
from squish.remote.address import parse
from squish.remote.reader import AnswerLimits, ChunkReader
from squish.remote.thoughts import ThoughtSplitter


@pytest.mark.parametrize(
    ("written", "base"),
    [
        ("localhost:8080", "http://localhost:8080"),
        (" http://127.0.0.1:11435/v1/ ", "http://127.0.0.1:11435"),
        ("https://mac.local", "https://mac.local"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
        ("http://host:1/v1/chat/completions", "http://host:1"),
        ("http://[::1]:8080/v1", "http://[::1]:8080"),
    ],
)
def test_an_address_is_taken_as_people_write_it(written: str, base: str) -> None:
    assert parse(written) == base


@pytest.mark.parametrize(
    "written",
    ["", "http://", "ftp://host", "http://host:99999", "http://ho st", "http://host/?key=1", "http://\x1b[2J"],
)
def test_what_is_not_an_address_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(written)
    assert "\x1b" not in caught.value.message
    assert "http://127.0.0.1:8080" in (caught.value.hint or "")


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse("http://me:secret@host:8080")
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"


# ---- requests


def request(prompt: ChatPrompt | None = None, **sampling: Any) -> GenerationRequest:
    return GenerationRequest("m", (prompt or ChatPrompt((Message("user", "Hi"),)),), SamplingParams(**sampling))


def written(asked: GenerationRequest, kind: fields.Fields) -> dict[str, Any]:
    return json.loads(msgspec.json.encode(fields.body(asked, kind)))


def test_a_plain_server_gets_only_fields_of_openai_unless_the_user_has_set_others() -> None:
    plain = {"model", "messages", "stream", "stream_options", "max_tokens", "temperature", "top_p"}
    assert set(written(request(), fields.PLAIN)) == plain
    assert written(request(top_k=3, seed=7, stop=("x",)), fields.PLAIN) | {"top_k": 3, "seed": 7, "stop": ["x"]} == (
        written(request(top_k=3, seed=7, stop=("x",)), fields.PLAIN)
    )
    assert "repetition_penalty" in written(request(repetition_penalty=1.2), fields.SQUISH)
    assert "repeat_penalty" in written(request(repetition_penalty=1.2), fields.LLAMA)


def test_thinking_is_switched_as_each_server_has_it() -> None:
    off = request(ChatPrompt((Message("user", "Hi"),), thinking=False))
    assert written(off, fields.SQUISH)["enable_thinking"] is False
    assert written(off, fields.LLAMA)["chat_template_kwargs"] == {"enable_thinking": False}
    assert written(off, fields.OLLAMA)["reasoning_effort"] == "none"


def test_an_answer_is_continued_only_where_the_server_can() -> None:
    half = request(ChatPrompt((Message("user", "Hi"), Message("assistant", "Hel")), continue_last=True))
    assert written(half, fields.SQUISH)["continue_final_message"] is True
    assert "continue_final_message" not in written(half, fields.OLLAMA)
    with pytest.raises(InvalidInput, match="cannot continue"):
        fields.body(half, fields.PLAIN)


def test_tools_and_formats_keep_their_schemas() -> None:
    tool = Tool("look", "Look.", '{"type":"object"}')
    sent = written(request(ChatPrompt((Message("user", "Hi"),), tools=(tool,), tool_choice="call:look")), fields.PLAIN)
    assert sent["tools"][0]["function"]["parameters"] == {"type": "object"}
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    schema = request(response_format=ResponseFormat("json_schema", '{"type":"null"}'))
    assert written(schema, fields.PLAIN)["response_format"]["json_schema"]["schema"] == {"type": "null"}
    regex = request(response_format=ResponseFormat("regex", "a|b"))
    assert written(regex, fields.SQUISH)["response_format"] == {"type": "regex", "regex": "a|b"}
    with pytest.raises(InvalidInput, match="cannot hold an answer to a pattern"):
        fields.body(regex, fields.LLAMA)
    limited = request(context=100)
    assert written(limited, fields.SQUISH)["num_ctx"] == 100
    with pytest.raises(InvalidInput, match="takes no context limit"):
        fields.body(limited, fields.OLLAMA)
    with pytest.raises(InvalidInput, match="for models on this machine"):
        fields.body(msgspec.structs.replace(request(), kv_bits=8), fields.SQUISH)
    with pytest.raises(InvalidInput, match="cannot hold an answer to a JSON schema"):
        fields.body(schema, fields.MLX)


# ---- answers


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def read(*chunks: Any, reader: ChunkReader | None = None) -> list[GenerationEvent]:
    reader = reader or ChunkReader(Clock(), lambda data: data.decode())
    events = [event for each in chunks for event in reader.feed(json.dumps(each).encode())]
    return [*events, *reader.end()]


def delta(reason: str | None = None, **said: Any) -> dict[str, Any]:
    return {"choices": [{"delta": said, "finish_reason": reason}]}


def test_an_answer_has_the_figures_of_the_server() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    timings = {"prompt_ms": 250, "predicted_ms": 500, "draft_n": 6, "draft_n_accepted": 5}
    text, end = read(delta(content="Hi"), delta("length"), {"choices": [], "usage": usage, "timings": timings})
    assert text == TextDelta(0, "Hi")
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.prompt_tokens, end.usage.completion_tokens, end.usage.cached_tokens) == (
        "length",
        9,
        2,
        4,
    )
    assert (end.timings.ttft, end.timings.decode, end.timings.accepted_tokens) == (0.25, 0.5, 5)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (AnswerLimits(), "length"),
        (AnswerLimits(2, 11), "length"),
        (AnswerLimits(512, 11), "context"),
        (AnswerLimits(512, 13), "context"),
        (AnswerLimits(512, 14), "length"),
        (AnswerLimits(512, 0), "length"),
    ],
)
def test_which_limit_cut_an_answer_is_told_by_what_it_took(limits: AnswerLimits, reason: str) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    reader = ChunkReader(Clock(), lambda data: "", limits=limits)
    [_, end] = read(delta(content="Hi"), delta("length"), {"choices": [], "usage": usage}, reader=reader)
    assert isinstance(end, Finished) and end.reason == reason


def test_without_figures_those_seen_from_here_are_taken() -> None:
    clock = Clock()
    reader = ChunkReader(clock, lambda data: "")
    for clock.now, word in ((1.5, "a"), (2.0, "b"), (3.5, "c")):
        list(reader.feed(json.dumps(delta(content=word)).encode()))
    list(reader.feed(json.dumps(delta("stop")).encode()))
    *_, end = reader.end()
    assert isinstance(end, Finished)
    assert (end.usage.completion_tokens, end.timings.ttft, end.timings.decode) == (3, 1.5, 2.0)


@pytest.mark.parametrize(("accepts", "ttft"), [(False, 9.0), (True, 1.5)])
def test_a_ttft_says_whether_the_queue_of_the_server_is_in_it(accepts: bool, ttft: float) -> None:
    """Squish's first chunk says that the request has left the queue; what others mean by theirs is not known."""
    clock = Clock()
    reader = ChunkReader(clock, lambda data: "", accepts)
    for clock.now, said in ((7.5, {"role": "assistant", "content": ""}), (9.0, {"content": "a"})):
        list(reader.feed(json.dumps(delta(**said)).encode()))
    stopped = reader.finished("cancelled").timings
    assert (stopped.ttft, stopped.with_queue) == (ttft, not accepts)
    list(reader.feed(b'{"choices": [], "timings": {"prompt_ms": 1400, "predicted_ms": 20}}'))
    assert reader.finished("stop").timings == Timings(1.4, 0.02)


def test_where_the_server_says_that_it_loads_ttft_begins_after_it() -> None:
    clock = Clock()
    reader = ChunkReader(clock, lambda data: "")
    clock.now = 57.0
    reader.loads()
    clock.now = 58.5
    list(reader.feed(json.dumps(delta("stop", content="a")).encode()))
    assert reader.finished("stop").timings.ttft == 1.5


def test_a_report_of_loading_that_comes_late_shortens_nothing() -> None:
    clock = Clock()
    reader = ChunkReader(clock, lambda data: "", True)
    list(reader.feed(json.dumps(delta(role="assistant")).encode()))
    clock.now = 1.0
    reader.loads()
    list(reader.feed(json.dumps(delta(content="a")).encode()))
    assert reader.finished("stop").timings.ttft == 1.0


def test_thoughts_come_by_any_of_their_names() -> None:
    both = [ReasoningDelta(0, "hm"), TextDelta(0, "Hi")]
    assert read(delta(reasoning_content="hm"), delta("stop", content="Hi"))[:2] == both
    assert read(delta(reasoning="hm"), delta("stop", content="Hi"))[:2] == both
    assert read(delta(content="<think>\nhm</think>\n\nHi"), delta("stop"))[:2] == both


def test_content_in_parts_is_read_as_the_text_and_the_thoughts_that_it_is() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]}
    parts = ["H", {"type": "text", "text": "i"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": 1}, 7]
    said = [ReasoningDelta(0, "hm"), TextDelta(0, "Hi")]
    assert read(delta(content=[thought, *parts]), delta("stop"))[:2] == said
    assert read(delta(content=[{"type": "thinking", "thinking": "hm"}]), delta("stop", content="Hi"))[:2] == said
    assert read(delta(content=[{"type": "thinking", "thinking": 1}, *parts]), delta("stop"))[:1] == said[1:]


def test_figures_of_another_type_are_passed_over_and_the_answer_stays() -> None:
    usage = {"prompt_tokens": "nine", "completion_tokens": 2, "prompt_tokens_details": [], "total_tokens": None}
    timings = {"prompt_ms": "fast", "predicted_ms": 500.0, "prompt_n": 2.5}
    text, end = read(delta(content="Hi"), delta("stop"), {"choices": [], "usage": usage, "timings": timings})
    assert text == TextDelta(0, "Hi") and isinstance(end, Finished)
    assert (end.usage.prompt_tokens, end.usage.completion_tokens, end.timings.decode) == (0, 2, 0.5)
    progress = {"choices": [], "prompt_progress": {"total": 100, "cache": "much", "processed": 70}}
    assert read(progress, delta("stop", content="x"))[1] == Prefill(0, 70, 100)
    others: tuple[Any, ...] = (7, "x", [], {}, {"total": "x"}, True)
    for foreign in others:
        sent = {"choices": [], "usage": foreign, "timings": foreign, "prompt_progress": foreign}
        assert read(delta("stop", content="Hi"), sent)[0] == TextDelta(0, "Hi")


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        ("<think>a < b </thin</think>\n\nyes", "a < b </thin", "yes"),
        ("  <think>never closed", "never closed", ""),
        ("<thin ice", "", "<thin ice"),
        ("plain <think>x</think>", "", "plain <think>x</think>"),
        ("<", "", "<"),
    ],
)
def test_thoughts_in_the_text_are_parted_however_it_is_cut(size: int, text: str, thought: str, said: str) -> None:
    splitter = ThoughtSplitter()
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    events = [event for each in pieces for event in splitter.feed(each)] + [*splitter.end()]
    assert "".join(each.text for each in events if isinstance(each, ReasoningDelta)) == thought
    assert "".join(each.text for each in events if isinstance(each, TextDelta)) == said


def test_calls_of_tools_are_read_with_and_without_an_index() -> None:
    def call(**piece: Any) -> dict[str, Any]:
        return delta(tool_calls=[piece])

    def calls(*chunks: Any) -> list[ToolCallDelta]:
        return [each for each in read(*chunks, delta("tool_calls")) if isinstance(each, ToolCallDelta)]

    first = call(index=0, id="x", function={"name": "look", "arguments": ""})
    more = [call(index=0, function={"arguments": each}) for each in ('{"a":', "1}")]
    assert calls(first, *more) == [
        ToolCallDelta(0, 0, "x", "look", ""),
        ToolCallDelta(0, 0, "x", None, '{"a":'),
        ToolCallDelta(0, 0, "x", None, "1}"),
    ]
    whole = call(id="x", function={"name": "a", "arguments": {"n": 1}})
    assert calls(whole, call(id="y", function={"name": "b"})) == [
        ToolCallDelta(0, 0, "x", "a", '{"n":1}'),
        ToolCallDelta(0, 1, "y", "b", ""),
    ]


def test_progress_of_the_prompt_is_shown() -> None:
    progress = {"total": 100, "cache": 60, "processed": 70}
    found = read({"choices": [], "prompt_progress": progress}, delta("stop", content="x"))
    assert found[:2] == [Accepted((100,)), Prefill(0, 10, 40)], "of what is not cached"


@pytest.mark.parametrize(
    "sent",
    [
        {"choices": "no"},
        {"error": {"message": "the GPU is on fire"}},
        {"choices": [{"delta": {"content": 7}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 4096}]}}]},
        [],
    ],
)
def test_what_is_not_a_part_of_an_answer_ends_it(sent: Any) -> None:
    with pytest.raises(RemoteError):
        read(sent)


def test_an_answer_that_breaks_off_is_not_complete() -> None:
    with pytest.raises(RemoteError, match="before it was complete"):
        read(delta(content="Hi"))


def test_pieces_that_arrive_together_have_no_speed() -> None:
    clock = Clock()
    reader = ChunkReader(clock, lambda data: "")
    for clock.now in (1.5, 1.501, 1.502):
        list(reader.feed(json.dumps(delta(content="word")).encode()))
    list(reader.feed(json.dumps(delta("stop")).encode()))
    *_, end = reader.end()
    assert isinstance(end, Finished)
    assert end.timings.decode_tps(end.usage.completion_tokens) == 0
