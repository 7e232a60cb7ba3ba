"""Thoughts and tool calls: told from the answer, read with the model's own parser, and never lost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import msgspec
import pytest

from squish.errors import InvalidInput
from squish.generation import (
    ChatPrompt,
    Finished,
    FinishReason,
    FormatKind,
    GenerationEvent,
    Message,
    ReasoningDelta,
    ResponseFormat,
    SamplingParams,
    TextDelta,
    TextPrompt,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from squish.worker.output.markers import edges_of
from squish.worker.output.row_output import Reading, RowOutput
from squish.worker.prompt.encoder import PromptEncoder
from squish.worker.prompt.tools import arguments_of, for_template
from tests.worker.byte_models import VOCABULARY, ByteBench, tokenizer

CITY = (
    """{"type": "object", "properties": {"city": {"type": "string", "maxLength": 4}}, "additionalProperties": false}"""
)
WEATHER = Tool("weather", "Tells the weather.", CITY)
ZONE = (
    '{"type": "object", "properties": {"zone": {"enum": [1, 2]}}, "required": ["zone"], "additionalProperties": false}'
)
TIME = Tool("time", "", ZONE)
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'


@pytest.fixture(autouse=True)
def repeatable() -> None:
    mx.random.seed(3)


@dataclass
class Answer:
    """What a client sees of an answer."""

    text: str
    reasoning: str
    calls: list[tuple[str, dict[str, object]]]
    end: Finished


def gathered(events: list[GenerationEvent]) -> Answer:
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    reasoning = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            if event.name is not None:
                assert event.call_index not in names
                names[event.call_index] = event.name
            else:
                assert event.call_index in names  # the name comes first
            arguments[event.call_index] = arguments.get(event.call_index, "") + event.arguments
    assert isinstance(events[-1], Finished)
    calls = [(names[index], json.loads(arguments[index])) for index in sorted(names)]
    return Answer(text, reasoning, calls, events[-1])


def read(
    text: str, *, thinking: bool = False, tools: bool = True, stops: tuple[str, ...] = (), last: FinishReason = "stop"
) -> Answer:
    """An answer of this text, token by token. last: "stop" ends it with the end token, "length" without."""
    used = tokenizer()
    reading = Reading(
        edges_of(used, tools=tools),
        "reasoning" if thinking else "normal",
        used.tool_parser if tools else None,
        for_template((WEATHER,)),
    )
    output = RowOutput(0, used.detokenizer, frozenset(used.eos_token_ids), stops, 5, 0.0, reading)
    tokens = list(used.encode(text))
    if last == "stop":
        tokens.append(used.eos_token_id)
    events: list[GenerationEvent] = []
    for at, token in enumerate(tokens):
        new, ended = output.feed(token, last if at == len(tokens) - 1 else None)
        events += new
        if ended:
            break
    return gathered(events)


def test_a_thought_is_told_from_the_answer() -> None:
    answer = read("<think>\nLet me see…\n</think>\n\nParis < Rome.")
    assert (answer.reasoning, answer.text) == ("Let me see…\n", "Paris < Rome.")
    assert answer.end.usage.reasoning_tokens == len("\nLet me see…\n".encode()) + 1


def test_a_prompt_that_opens_the_thought_begins_in_it() -> None:
    answer = read("Hm.</think>Yes.", thinking=True)
    assert (answer.reasoning, answer.text, answer.end.reason) == ("Hm.", "Yes.", "stop")


def test_a_thought_that_never_ends_is_no_answer() -> None:
    answer = read("Hm. <", thinking=True, last="length")
    assert (answer.reasoning, answer.text, answer.end.reason) == ("Hm. <", "", "length")


def test_a_stop_string_ends_the_answer_and_not_the_thought() -> None:
    answer = read("STOP?</think>Yes. STOP no", thinking=True, stops=("STOP",))
    assert (answer.reasoning, answer.text, answer.end.reason) == ("STOP?", "Yes. ", "stop")


def test_a_call_is_read_and_its_text_is_not_shown() -> None:
    answer = read(f"One moment.\n{CALL}")
    assert answer.calls == [("weather", {"city": "Köln"})]
    assert (answer.text, answer.end.reason) == ("One moment.\n", "tool_calls")


def test_several_calls_are_numbered() -> None:
    answer = read(f"{CALL}\n{CALL}")
    assert [name for name, _ in answer.calls] == ["weather", "weather"]
    assert answer.text == ""


def test_a_call_in_a_thought_is_a_call() -> None:
    answer = read(f"Look it up.{CALL}", thinking=True)
    assert (answer.reasoning, len(answer.calls)) == ("Look it up.", 1)


@pytest.mark.parametrize("broken", ["{not json}", '{"name": 5}', '["weather"]', '{"name": "w", "arguments": [1]}', ""])
def test_a_call_that_cannot_be_read_comes_back_as_text(broken: str) -> None:
    text = f"So: <tool_call>{broken}</tool_call> done"
    answer = read(text)
    assert (answer.text, answer.calls, answer.end.reason) == (text, [], "stop")


def test_a_call_cut_off_by_the_limit_comes_back_as_text() -> None:
    answer = read(CALL[:30], last="length")
    assert (answer.text, answer.calls, answer.end.reason) == (CALL[:30], [], "length")


def test_a_call_whose_end_marker_is_missing_is_read_when_the_answer_ends() -> None:
    assert len(read(CALL.removesuffix("</tool_call>")).calls) == 1


def test_without_tools_a_call_is_text() -> None:
    assert read(CALL, tools=False).text == CALL


def encoded(prompt: ChatPrompt, *, thinks: bool = False) -> str:
    used = tokenizer(thinks=thinks)
    return str(used.decode(PromptEncoder(used, 2048, VOCABULARY).encode(prompt)))


def test_a_conversation_with_calls_and_results_is_rendered() -> None:
    messages = (
        Message("user", "u"),
        Message("assistant", "", tool_calls=(ToolCall("c1", "f", '{"x": 7}'),)),
        Message("tool", "sun", tool_call_id="c1", name="f"),
    )
    shown = encoded(ChatPrompt(messages, tools=(WEATHER,)))
    assert shown == "T:weather;user:u|assistant:<tool_call>f=7</tool_call>|tool:sun#c1|A:"
    assert encoded(ChatPrompt(messages[:1], tools=(WEATHER,), tool_choice="none")) == "user:u|A:"


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (ChatPrompt((Message("user", "u"),), tool_choice="required"), "tool_choice"),
        (ChatPrompt((Message("user", "u"),), tools=(WEATHER,), tool_choice="call:nothing"), "tool_choice"),
        (ChatPrompt((Message("user", "u"),), tools=(Tool("f", parameters="[1"),)), "tools"),
    ],
)
def test_tools_that_cannot_be_used_are_refused(prompt: ChatPrompt, param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        encoded(prompt)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("choice", "names"), [("required", {"weather", "time"}), ("call:time", {"time"}), ("call:weather", {"weather"})]
)
def test_a_call_can_be_demanded_even_of_a_random_model(choice: str, names: set[str]) -> None:
    bench = ByteBench()
    prompt = ChatPrompt((Message("user", "u"),), tools=(WEATHER, TIME), tool_choice=choice)
    sampling = SamplingParams(temperature=1, top_p=1, seed=1, max_tokens=200)
    answer = gathered(bench.run(bench.prepare(1, prompt, sampling))[1])
    assert (answer.text, answer.end.reason, len(answer.calls)) == ("", "tool_calls", 1)
    assert answer.calls[0][0] in names


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_with_tools_an_answer_in_a_format_is_a_call_or_has_the_format(kind: FormatKind) -> None:
    bench = ByteBench()
    wanted = ResponseFormat(kind, '{"type": "object", "properties": {"ok": {"const": true}}, "required": ["ok"]}')
    opens = bench.tokenizer.encode("<tool_call>")[0]
    for bias, expected in ((-100.0, "stop"), (100.0, "tool_calls")):
        quotes = tuple(
            (token, -100.0) for token in range(256) if bench.tokenizer.decode([token]) not in '{}":,okTtrue[]'
        )
        sampling = SamplingParams(
            temperature=1, top_p=1, seed=1, max_tokens=300, response_format=wanted, logit_bias=((opens, bias), *quotes)
        )
        prompt = ChatPrompt((Message("user", "u"),), tools=(WEATHER,))
        answer = gathered(bench.run(bench.prepare(1, prompt, sampling))[1])
        assert answer.end.reason == expected
        assert answer.calls if bias > 0 else isinstance(json.loads(answer.text), dict)


def test_references_in_the_schema_of_a_demanded_tool_are_followed() -> None:
    bench = ByteBench()
    schema = {
        "type": "object",
        "properties": {"unit": {"$ref": "#/$defs/Unit"}},
        "required": ["unit"],
        "additionalProperties": False,
        "$defs": {"Unit": {"enum": ["C", "F"]}},
    }
    prompt = ChatPrompt(
        (Message("user", "u"),), tools=(WEATHER, Tool("heat", "", json.dumps(schema))), tool_choice="call:heat"
    )
    sampling = SamplingParams(temperature=1, top_p=1, seed=1, max_tokens=100)
    answer = gathered(bench.run(bench.prepare(1, prompt, sampling))[1])
    assert answer.calls[0][1] in ({"unit": "C"}, {"unit": "F"})


def test_a_thinking_prompt_is_recognized_and_a_marker_in_a_message_is_not() -> None:
    sampling = SamplingParams()
    message = (Message("user", "What does <think> mean?"),)

    def begins(prompt: ChatPrompt, *, thinks: bool) -> str:
        used = tokenizer(thinks=thinks)
        reading = PromptEncoder(used, 2048, VOCABULARY).prepare(prompt, sampling)[1].reading
        assert reading
        return reading.start

    assert begins(ChatPrompt(message), thinks=True) == "reasoning"
    assert begins(ChatPrompt(message), thinks=False) == "normal"
    unfinished = (*message, Message("assistant", "<think>It means"))
    assert begins(ChatPrompt(unfinished, continue_last=True), thinks=False) == "reasoning"


def test_raw_text_is_not_taken_apart() -> None:
    assert ByteBench().prepare(1, TextPrompt("x <think>"), SamplingParams()).plans[0].reading is None


def tool(parameters: object, name: str = "bad", *, lenient: bool = False) -> Tool:
    return Tool(name, "", json.dumps(parameters), lenient, f"tools.{name}.schema")


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"type": "object", "properties": {"a": {"type": "dict"}}}, "properties.a: "),
        ({"type": "object", "properties": {"a": {"uniqueItems": True}}}, "properties.a.uniqueItems"),
        ({"type": "object", "properties": {"a": "string"}}, "properties.a must be a schema"),
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "properties.a: "),
    ],
)
@pytest.mark.parametrize("choice", ["required", "call:bad"])
def test_a_bad_tool_among_good_ones_is_named(parameters: object, reason: str, choice: str) -> None:
    prompt = ChatPrompt((Message("user", "u"),), tools=(WEATHER, TIME, tool(parameters)), tool_choice=choice)
    with pytest.raises(InvalidInput) as refused:
        ByteBench().prepare(1, prompt, SamplingParams())
    assert refused.value.param == "tools.bad.schema"
    assert reason in refused.value.message
    lenient = msgspec.structs.replace(
        prompt, tools=(WEATHER, tool({"properties": {"a": {"type": "dict"}}}, lenient=True))
    )
    with pytest.raises(InvalidInput) as refused:
        ByteBench().prepare(1, lenient, SamplingParams())
    assert refused.value.param == "tools.bad.schema"
    good = msgspec.structs.replace(prompt, tool_choice="call:time")
    assert ByteBench().prepare(1, good, SamplingParams()).plans[0].grammar  # what is not demanded is not compiled


def test_a_tool_that_may_be_lenient_is_called_and_what_is_not_held_is_noted() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True}},
    }
    numbers = {"type": "object", "properties": {"n": {"type": "array", "uniqueItems": True}}}
    prompt = ChatPrompt(
        (Message("user", "u"),), tools=(tool(schema), tool(numbers, "n", lenient=True)), tool_choice="required"
    )
    grammar = ByteBench().prepare(1, prompt, SamplingParams()).plans[0].grammar
    assert grammar is not None
    assert grammar.notes == ("properties.n.uniqueItems",)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"properties": {"a": {"type": "boolean"}}},
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": False},
            ]
        },
        {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {"type": "null"}}, "additionalProperties": False}}},
        {"enum": ["x", {"a": 1}]},
    ],
    ids=str,
)
def test_arguments_of_a_demanded_call_are_an_object_whatever_the_schema_leaves_open(parameters: object) -> None:
    bench = ByteBench()
    prompt = ChatPrompt((Message("user", "u"),), tools=(tool(parameters),), tool_choice="call:bad")
    others = [token for token in range(256) if bench.tokenizer.decode([token]) not in '{}":,atruefalsn1\n']
    bias = tuple((token, -100.0) for token in others)
    sampling = SamplingParams(temperature=1, top_p=1, seed=2, max_tokens=400, logit_bias=bias)
    answer = gathered(bench.run(bench.prepare(1, prompt, sampling))[1])
    assert [name for name, _ in answer.calls] == ["bad"]
    assert isinstance(answer.calls[0][1], dict)


@pytest.mark.parametrize(
    ("parameters", "complete"),
    [
        ({"properties": {"a": {}}}, True),
        ({"properties": {}}, True),
        ({"properties": {"a": {}}, "required": ["a"]}, True),
        ({}, False),
        ({"properties": {"a": {}}, "required": ["b"]}, False),
        ({"properties": {"a": {}}, "additionalProperties": True}, False),
        ({"properties": {"a": {}}, "anyOf": [{"required": ["b"]}]}, False),
    ],
    ids=str,
)
def test_a_call_has_no_arguments_that_its_function_does_not_list(parameters: dict[str, Any], complete: bool) -> None:
    [wanted] = arguments_of((tool(parameters),))
    schema = json.loads(wanted.text)
    expected = {"type": "object"} | parameters | ({"additionalProperties": False} if complete else {})
    assert schema == expected


def test_a_call_of_too_many_tools_is_refused_in_words() -> None:
    each = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}}
    tools = tuple(tool({"properties": {f"p{i}": each for i in range(10)}}, f"f{n}") for n in range(500))
    prompt = ChatPrompt((Message("user", "u"),), tools=tools, tool_choice="required")
    with pytest.raises(InvalidInput) as refused:
        PromptEncoder(tokenizer(), 10_000_000, VOCABULARY).prepare(prompt, SamplingParams())
    assert refused.value.message == "The grammar cannot be used: it is too large."
    assert refused.value.param == "tool_choice"
