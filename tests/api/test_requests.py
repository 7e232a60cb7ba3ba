"""What the API takes and what it refuses, field by field. No server is needed to know that."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from squish.api.openai.requests import ChatRequest, CompletionRequest
from squish.api.openai.translate import chat_to_generation, completion_to_generation, decode
from squish.errors import InvalidInput
from squish.generation import (
    ChatPrompt,
    GenerationRequest,
    Message,
    ResponseFormat,
    SamplingParams,
    TextPrompt,
    TokenPrompt,
    Tool,
    ToolCall,
)

MESSAGES = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}

CALLED: dict[str, Any] = {"role": "assistant", "tool_calls": [CALL]}
ANSWERED = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
DEEP_CALL = CALLED | {
    "tool_calls": [CALL | {"function": {"name": "weather", "arguments": "[" * 50_000 + "]" * 50_000}}]
}
CIRCLE = {
    "$ref": "#/$defs/a",
    "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}},
}


def _schema(schema: dict[str, Any], name: str = "x") -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


def _tool(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "other", "parameters": parameters}}


def _chain(length: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(length)}
    return {"$defs": definitions | {f"d{length}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def chat(**fields: Any) -> GenerationRequest:
    body = {"model": "m", "messages": MESSAGES} | fields
    return chat_to_generation(decode(json.dumps(body).encode(), ChatRequest))


def complete(**fields: Any) -> GenerationRequest:
    return completion_to_generation(decode(json.dumps({"model": "m"} | fields).encode(), CompletionRequest))


def test_the_documented_defaults() -> None:
    assert chat() == GenerationRequest("m", (ChatPrompt((Message("user", "Hi"),)),), SamplingParams(512, 0.7, 0.9))
    assert complete(prompt="x") == GenerationRequest("m", (TextPrompt("x"),), SamplingParams(256, 0.7, 0.9))


def test_every_sampling_field_arrives() -> None:
    given = {"max_tokens": 3, "temperature": 1, "top_p": 0.5, "top_k": 4, "min_p": 0.1, "seed": 7, "stop": ["a", "b"]}
    given |= {"repetition_penalty": 1.1, "presence_penalty": -1, "frequency_penalty": 0.5, "n": 2}
    given |= {"logit_bias": {"5": -100, "7": 1.5}, "response_format": {"type": "json_object"}}
    expected = SamplingParams(
        3, 1.0, 0.5, 4, 0.1, 7, ("a", "b"), 1.1, -1.0, 0.5, ((5, -100.0), (7, 1.5)),
        n=2, response_format=ResponseFormat("json_object"),
    )  # fmt: skip
    assert chat(**given).sampling == expected
    assert complete(prompt="x", **given).sampling == chat(**given).sampling
    assert chat(stop="a").sampling.stop == ("a",)
    assert chat(max_completion_tokens=5).sampling.max_tokens == 5


def test_null_is_absent() -> None:
    names = (
        "max_tokens max_completion_tokens temperature top_p stop n seed stream stream_options tools tool_choice "
        "logprobs logit_bias response_format frequency_penalty user"
    )
    nothing = dict.fromkeys(names.split())
    assert chat(**nothing) == chat()
    assert complete(prompt="x", batch=None, suffix=None, echo=None, best_of=None, logprobs=None) == complete(prompt="x")


NEUTRAL_CHAT: list[dict[str, Any]] = [
    {"logprobs": False, "top_logprobs": 0},
    {"logit_bias": {}},
    {"frequency_penalty": 0, "presence_penalty": 0.0},
    {"tools": [], "tool_choice": "auto", "functions": None, "parallel_tool_calls": True},
    {"response_format": {"type": "text"}, "modalities": ["text"]},
    {"n": 1, "user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "no_such_field": [1]},
    {"min_tokens": 0, "ignore_eos": False, "guided_json": None, "options": {}},
    {"messages": [MESSAGES[0] | {"name": "Ada"}]},
]


@pytest.mark.parametrize("fields", NEUTRAL_CHAT, ids=lambda fields: ",".join(fields))
def test_fields_that_change_nothing_are_taken(fields: dict[str, Any]) -> None:
    assert chat(**fields) == chat()


UNSUPPORTED_CHAT: dict[str, Any] = {
    "functions": [{"name": "f"}],
    "function_call": "auto",
    "guided_regex": "a+",
    "guided_json": {"type": "object"},
    "guided_grammar": 'start: "a"',
    "guided_choice": ["a", "b"],
    "regex": "a+",
    "grammar": 'root ::= "a"',
    "options": {"temperature": 0},
    "chat_template_args": {"enable_thinking": False},
    "top_n_sigma": 1.0,
    "no_repeat_ngram_size": 2,
    "lora": [{"id": 0, "scale": 1}],
    "repeat_penalty": 1.1,
    "verbosity": "low",
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy"},
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
}
UNSUPPORTED_COMPLETION: dict[str, Any] = {"best_of": 2, "echo": True, "suffix": "x"}


@pytest.mark.parametrize("field", UNSUPPORTED_CHAT)
def test_a_field_that_would_change_the_answer_is_refused_by_name(field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        chat(**{field: UNSUPPORTED_CHAT[field]})
    assert raised.value.param == field
    assert field in raised.value.message


@pytest.mark.parametrize("field", UNSUPPORTED_COMPLETION)
def test_the_same_for_completions(field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        complete(prompt="x", **{field: UNSUPPORTED_COMPLETION[field]})
    assert raised.value.param == field


WRONG_CHAT: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 2.01}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": 1e30}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -2}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"seed": 2**64}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"stop": ["a"] * 65}, "stop"),
    ({"stop": 3}, "stop"),
    ({"stop": ["a", 3]}, "stop[1]"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"n": True}, "n"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"model": 3}, "model"),
    ({"model": ""}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": ["Hi"]}, "messages[0]"),
    ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "function", "content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": "", "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "assistant", "tool_calls": [CALL | {"type": "x"}]}]}, "messages[0].tool_calls[0].type"),
    ({"messages": [{"role": "assistant", "content": "", "function_call": {}}]}, "messages[0].function_call"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"99999999999": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"frequency_penalty": 2.1}, "frequency_penalty"),
    ({"presence_penalty": "high"}, "presence_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].function"),
    ({"tools": [TOOL | {"type": "custom"}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
    ({"tools": [TOOL] * 129}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "some"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice.function.name"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format.json_schema.schema"),
    ({"response_format": {"type": "regex"}}, "response_format.regex"),
    ({"response_format": {"type": "lark", "lark": "start: a\na: start\n" * 1000}}, "response_format.lark"),
    ({"reasoning_effort": "huge"}, "reasoning_effort"),
    ({"messages": [*MESSAGES, {"role": "user"}]}, "messages[1].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].id"),
    ({"messages": [MESSAGES[0] | {"name": 3}]}, "messages[0].name"),
    ({"messages": [*MESSAGES, CALLED, ANSWERED | {"tool_call_id": "call_2"}]}, "messages[2].tool_call_id"),
    ({"messages": [*MESSAGES, ANSWERED, CALLED]}, "messages[1].tool_call_id"),
    ({"messages": [DEEP_CALL]}, "messages[0].tool_calls[0].function.arguments"),
    ({"user": 3}, "user"),
    ({"metadata": "x"}, "metadata"),
    ({"metadata": {"a": 1}}, "metadata"),
    ({"store": "yes"}, "store"),
    ({"keep_alive": "soon"}, "keep_alive"),
    ({"keep_alive": True}, "keep_alive"),
    ({"keep_alive": 1e300}, "keep_alive"),
    ({"logit_bias": {"1": "high"}}, "logit_bias"),
    ({"response_format": _schema({"$ref": "#"})}, "response_format.json_schema.schema"),
    ({"response_format": _schema(CIRCLE)}, "response_format.json_schema.schema"),
    ({"response_format": _schema(_nested(200))}, "response_format.json_schema.schema"),
    ({"response_format": _schema(_chain(2000))}, "response_format.json_schema.schema"),
    ({"response_format": _schema({}, name="a b")}, "response_format.json_schema.name"),
    ({"response_format": _schema({}, name="x" * 65)}, "response_format.json_schema.name"),
    ({"tools": [TOOL, _tool({"$ref": "#"})]}, "tools[1].function.parameters"),
    ({"tools": [_tool(_nested(200))]}, "tools[0].function.parameters"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG_CHAT, ids=str)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        chat(**fields)
    assert raised.value.param == param
    assert raised.value.message.startswith((param, "The role", "Content", "max_tokens", "tool_choice"))


WRONG_COMPLETIONS: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt"),
    ({"prompt": None, "batch": None}, "prompt"),
    ({"prompt": "x", "batch": ["y"]}, "batch"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": ["a", ""]}, "prompt[1]"),
    ({"prompt": [[]]}, "prompt[0]"),
    ({"prompt": [[1], "a"]}, "prompt"),
    ({"prompt": [1, True]}, "prompt[1]"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [[1], [2**40]]}, "prompt[1]"),
    ({"prompt": "x", "logprobs": 6}, "logprobs"),
    ({"prompt": "x", "logprobs": -1}, "logprobs"),
    ({"prompt": ["x"] * 257}, "prompt"),
    ({"prompt": ["x"] * 100, "n": 3}, "n"),
    ({"batch": []}, "batch"),
    ({"batch": "x"}, "batch"),
    ({"batch": ["x", ""]}, "batch[1]"),
    ({"batch": [[1, 2]]}, "batch[0]"),
    ({"batch": ["x"] * 257}, "batch"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG_COMPLETIONS, ids=lambda value: str(value)[:40])
def test_a_wrong_prompt_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        complete(**fields)
    assert raised.value.param == param


def test_prompts_come_in_four_forms_and_as_batch() -> None:
    assert complete(prompt=["a", "b"]).prompts == (TextPrompt("a"), TextPrompt("b"))
    assert complete(prompt=[1, 2]).prompts == (TokenPrompt((1, 2)),)
    assert complete(prompt=[[1], [2, 3]]).prompts == (TokenPrompt((1,)), TokenPrompt((2, 3)))
    assert complete(batch=["a", "b"]).prompts == (TextPrompt("a"), TextPrompt("b"))


def test_n_is_rows_per_prompt() -> None:
    asked = complete(prompt=["a", "b"], n=2)
    assert (asked.prompts, asked.rows) == ((TextPrompt("a"), TextPrompt("b")), 4)
    assert chat(n=3).rows == 3


def test_a_conversation_with_tools() -> None:
    answered = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    messages = [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [CALL]}, answered]
    named = {"type": "function", "function": {"name": "weather"}}
    schema = json.dumps(SCHEMA, separators=(",", ":"))
    tool = Tool("weather", "Tells it.", schema, field="tools[0].function.parameters")
    call = ToolCall("call_1", "weather", '{"city":"Paris"}')
    expected = (
        Message("user", "Hi"),
        Message("assistant", "", (call,)),
        Message("tool", "sunny", (), "call_1", "weather"),
    )
    for choice, meant in ((None, "auto"), ("none", "none"), ("required", "required"), (named, "call:weather")):
        prompt = chat(messages=messages, tools=[TOOL], tool_choice=choice).prompts[0]
        assert prompt == ChatPrompt(expected, tools=(tool,), tool_choice=meant)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, ResponseFormat("json_object")),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "object"}}},
            ResponseFormat("json_schema", '{"type":"object"}', "response_format.json_schema.schema"),
        ),
        ({"type": "regex", "regex": "a+"}, ResponseFormat("regex", "a+", "response_format.regex")),
        ({"type": "lark", "lark": 'start: "a"'}, ResponseFormat("lark", 'start: "a"', "response_format.lark")),
    ],
    ids=str,
)
def test_formats(asked: dict[str, Any], meant: ResponseFormat | None) -> None:
    assert chat(response_format=asked).sampling.response_format == meant
    assert complete(prompt="x", response_format=asked).sampling.response_format == meant


def test_log_probabilities_in_both_dialects() -> None:
    assert chat(logprobs=True, top_logprobs=3).sampling == msgspec.structs.replace(
        chat().sampling, logprobs=True, top_logprobs=3
    )
    for asked, top in ((0, 0), (5, 5)):
        sampling = complete(prompt="x", logprobs=asked).sampling
        assert (sampling.logprobs, sampling.top_logprobs) == (True, top)


def test_how_much_to_think() -> None:
    asked = {None: None, "none": False, "minimal": False, "low": True, "high": True}
    for effort, thinking in asked.items():
        prompt = chat(reasoning_effort=effort).prompts[0]
        assert isinstance(prompt, ChatPrompt)
        assert prompt.thinking is thinking


def test_content_parts_and_the_developer_role() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = chat(messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}])
    assert asked.prompts == (ChatPrompt((Message("system", "Be brief."), Message("user", "ab"))),)


def test_a_schema_may_refer_to_itself_on_the_way_to_a_value() -> None:
    tree = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "$ref": {}}}
    wanted = chat(response_format=_schema(tree)).sampling.response_format
    assert wanted is not None
    assert json.loads(wanted.text) == tree
    assert chat(response_format=_schema(_chain(1000))).sampling.response_format is not None
    assert chat(response_format=_schema({"enum": [{"$ref": "#/nowhere"}]})).sampling.response_format is not None


def test_how_long_the_model_stays() -> None:
    asked = {None: None, 0: 0, -1: -1, 90: 90, "300": 300, "5m": 300, "1h30m": 5400, "-1": -1, "500ms": 0.5}
    assert {each: chat(keep_alive=each).keep_alive for each in asked} == asked
    assert complete(prompt="x", keep_alive="2h").keep_alive == 7200


DEEP = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
NOT_JSON: list[tuple[bytes, str, str | None]] = [
    (b"", "is empty", None),
    (b" \n", "is empty", None),
    (b"{", "(line 1, column 2)", None),
    (b"{'a': 1}", "(line 1, column 2)", None),
    (b"[]", "must be an object, not a list", None),
    (b'"x"', "must be an object, not a string", None),
    (b"null", "must be an object, not null", None),
    (b'{"model":"m","messages":"\xff"}', "not UTF-8 text: byte 25 is not", None),
    (b'{"model":"m","messages":[{"role":"user","content":"x"}],"x":"\xc3"}', "not UTF-8 text", None),
    (b'{"temperature":NaN}', "temperature is NaN", "temperature"),
    (b'{"messages":[{"a":[0,-Infinity]}]}', "messages[0].a[1] is -Infinity", "messages[0].a[1]"),
    (DEEP, "nested too deeply", None),
    (b"[" * 100_000, "must be an object, not a list", None),
    (b'{"model":"\\ud800"}', "model has half of a surrogate pair", "model"),
    (b'{"messages":[{"\\udc00":1}]}', "messages[0] has half of a surrogate pair", "messages[0]"),
]


@pytest.mark.parametrize(("body", "reason", "param"), NOT_JSON, ids=lambda value: str(value)[:40])
def test_a_body_that_is_no_request(body: bytes, reason: str, param: str | None) -> None:
    with pytest.raises(InvalidInput) as raised:
        decode(body, ChatRequest)
    assert reason in raised.value.message
    assert raised.value.param == param
