"""What clients send beyond OpenAI's own: done as they mean it, or refused by its name, at every level of a body."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from squish.api import openapi
from squish.api.anthropic import foreign as anthropic
from squish.api.fields.efforts import EFFORTS
from squish.api.fields.foreign import Level
from squish.api.ollama import foreign as ollama
from squish.api.openai import foreign, translate
from squish.api.openai.requests import ChatRequest, CompletionRequest
from squish.errors import InvalidInput
from squish.generation import ChatPrompt, Message, ResponseFormat, SamplingParams
from tests.api.test_requests import CALL, CALLED, MESSAGES, SCHEMA, TOOL, chat, complete

ANSWER = {"role": "assistant", "content": "It is"}
SCHEMA_TEXT = json.dumps(SCHEMA, separators=(",", ":"))


@pytest.mark.parametrize("level", [anthropic.MESSAGES, ollama.CHAT, ollama.GENERATE])
def test_whoever_is_sent_to_the_chats_of_openai_finds_the_field_there(level: Level) -> None:
    known = {each.encode_name for each in msgspec.structs.fields(ChatRequest)}
    named = {name for name, hint in level.instead.items() if hint.endswith("/v1/chat/completions, which has it.")}
    assert named
    assert named <= known - foreign.CHAT.instead.keys()


def prompt_of(**fields: Any) -> ChatPrompt:
    [prompt] = chat(**fields).prompts
    assert isinstance(prompt, ChatPrompt)
    return prompt


def refused(**fields: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as raised:
        chat(**fields)
    assert raised.value.param
    assert raised.value.param in raised.value.message or raised.value.param.endswith("type")
    return raised.value


OFF: list[dict[str, Any]] = [
    {"think": False},
    {"think": "none"},
    {"enable_thinking": False},
    {"thinking": False},
    {"thinking": {"type": "disabled"}},
    {"reasoning": False},
    {"reasoning": {"enabled": False}},
    {"reasoning": {"effort": "none"}},
    {"reasoning_effort": "none"},
    {"reasoning_effort": "off"},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"chat_template_kwargs": {"thinking": False}},
    {"think": False, "chat_template_kwargs": {"enable_thinking": False}, "reasoning": {}},
]
ON: list[dict[str, Any]] = [
    {"think": True},
    {"think": "high"},
    {"thinking": {"type": "enabled"}},
    {"reasoning": {"effort": "low"}},
    {"reasoning_effort": "max"},
    {"reasoning_effort": "xhigh"},
    {"chat_template_kwargs": {"enable_thinking": True}},
]
AS_IT_IS: list[dict[str, Any]] = [
    {"reasoning_effort": "default"},
    {"reasoning_effort": "auto"},
    {"thinking": {"type": "auto"}},
    {"reasoning": {}},
    {"chat_template_kwargs": {}},
    {"think": None, "thinking": None, "reasoning": None, "enable_thinking": None},
]


@pytest.mark.parametrize(
    ("fields", "meant"), [(f, False) for f in OFF] + [(f, True) for f in ON] + [(f, None) for f in AS_IT_IS], ids=str
)
def test_every_switch_for_thinking_switches_it(fields: dict[str, Any], meant: bool | None) -> None:
    assert prompt_of(**fields).thinking is meant


def test_every_word_for_an_effort_is_in_the_document_and_in_the_message() -> None:
    described = str(openapi.openapi()["components"]["schemas"]["ReasoningSwitch"])
    message = refused(reasoning_effort="huge").message
    for word in filter(None, EFFORTS):
        assert word in message
        assert word.startswith("disable") or word == "auto" or word in described


def test_degrees_of_an_effort() -> None:
    words = {
        "minimal": "low",
        "low": "low",
        "medium": "medium",
        "high": "high",
        "max": "high",
        "none": None,
        "auto": None,
    }
    for word, effort in words.items():
        for fields in ({"reasoning_effort": word}, {"think": word}, {"reasoning": {"effort": word}}):
            assert prompt_of(**fields).effort == effort
    assert prompt_of(think=True).effort is None


DEEP = ["[" * 100_000 + "]" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000, '{"items":' * 900 + "{}" + "}" * 900]
PLACES = [
    *({*ChatRequest.__struct_fields__, *CompletionRequest.__struct_fields__, "options"} - {"model", "messages"}),
    'response_format": {"type": "json_schema", "schema": %s}, "x',
    'tools": [{"type": "function", "function": {"name": "f", "parameters": %s}}], "x',
    'x": [{"y": %s}], "z',
]


@pytest.mark.parametrize("deep", DEEP, ids=["lists", "objects", "schemas"])
def test_whatever_is_nested_deep_is_refused_or_ignored_wherever_it_stands(deep: str) -> None:
    for place in sorted(PLACES):
        field = f'"{place.replace("%s", deep)}": {"null" if "%s" in place else deep}'
        for read in (translate.read_chat, translate.read_completion):
            beginning = '{"model": "m", "messages": [{"role": "user", "content": "x"}], '
            try:
                read((beginning + field + "}").encode())
            except InvalidInput as error:
                assert len(error.message) < 500


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"think": False, "reasoning_effort": "high"}, "think"),
    ({"think": "deeply"}, "think"),
    ({"think": "high", "reasoning_effort": "low"}, "reasoning_effort"),
    ({"thinking": {"type": "sometimes"}}, "thinking.type"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1000}}, "thinking.budget_tokens"),
    ({"reasoning": {"max_tokens": 1000}}, "reasoning.max_tokens"),
    ({"reasoning": {"exclude": True}}, "reasoning.exclude"),
    ({"include_reasoning": False}, "include_reasoning"),
    (
        {"chat_template_kwargs": {"add_generation_prompt": False, "tools_in_user_message": False, "x": 1}},
        "chat_template_kwargs.x",
    ),
    ({"stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"type": "object"}}},
        "response_format.json_schema.type",
    ),
    ({"response_format": {"type": "json_object", "pattern": "a+"}}, "response_format.pattern"),
    ({"response_format": {"type": "text", "schema": SCHEMA}}, "response_format.schema"),
    (
        {"response_format": {"type": "text", "json_schema": {"name": "x", "schema": SCHEMA}}},
        "response_format.json_schema",
    ),
    ({"response_format": {"type": "regex", "regex": "a", "schema": SCHEMA}}, "response_format.schema"),
    ({"response_format": {"type": "lark", "lark": "a", "regex": "a"}}, "response_format.regex"),
    (
        {"response_format": {"type": "json_object", "schema": SCHEMA, "json_schema": {"schema": {}}}},
        "response_format.schema",
    ),
    ({"response_format": {"type": "json_object", "json_schema": {"name": "x"}}}, "response_format.json_schema.schema"),
    ({"messages": [MESSAGES[0] | {"images": ["aGk="]}]}, "messages[0].images"),
    ({"tools": [TOOL | {"parameters": SCHEMA}]}, "tools[0].parameters"),
    (
        {"tools": [TOOL, {"type": "function", "function": {"name": "f", "input_schema": SCHEMA}}]},
        "tools[1].function.input_schema",
    ),
    ({"do_sample": False}, "do_sample"),
    ({"skip_special_tokens": False}, "skip_special_tokens"),
    ({"extra_body": {"top_k": 1}}, "extra_body"),
    ({"random_seed": 0}, "random_seed"),
    ({"epsilon_cutoff": 3e-4}, "epsilon_cutoff"),
    ({"eta_cutoff": 1}, "eta_cutoff"),
    ({"negative_prompt": "rude"}, "negative_prompt"),
    ({"guidance_scale": 1.5}, "guidance_scale"),
    ({"mirostat_tau": 3}, "mirostat_tau"),
    ({"penalty_last_n": 64}, "penalty_last_n"),
    ({"repeat_last_n": 0}, "repeat_last_n"),
    ({"encoder_repetition_penalty": 1.1}, "encoder_repetition_penalty"),
    ({"thinking_config": {"thinking_budget": 0}}, "thinking_config"),
    ({"enable_reasoning": False}, "enable_reasoning"),
    ({"disable_reasoning": True}, "disable_reasoning"),
    ({"n_ctx": 2048}, "n_ctx"),
    ({"num_ctx": 1}, "num_ctx"),
    ({"add_special_tokens": True}, "add_special_tokens"),
    ({"messages": [MESSAGES[0] | {"image_url": {"url": "data:"}}]}, "messages[0].image_url"),
    ({"messages": [MESSAGES[0] | {"documents": [{"text": "x"}]}]}, "messages[0].documents"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "image_url": {"url": "data:"}}]}]},
        "messages[0].content[0].image_url",
    ),
    ({"prompt": "x"}, "prompt"),
    ({"echo": True}, "echo"),
    ({"documents": [{"text": "x"}]}, "documents"),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"add_generation_prompt": False}, "add_generation_prompt"),
    ({"messages": [MESSAGES[0] | {"prefix": True}]}, "messages[0].prefix"),
    ({"messages": [ANSWER | {"prefix": True}, *MESSAGES]}, "messages[0].prefix"),
    (
        {"messages": [*MESSAGES, ANSWER], "continue_final_message": True, "add_generation_prompt": True},
        "add_generation_prompt",
    ),
    ({"messages": [*MESSAGES, ANSWER], "response_format": {"type": "json_object"}}, "response_format"),
    ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_would_change_the_answer_and_is_not_done_is_refused_where_it_stands(
    fields: dict[str, Any], param: str
) -> None:
    assert refused(**fields).param == param


NOT_FOR_COMPLETIONS: dict[str, Any] = {
    "messages": MESSAGES,
    "max_completion_tokens": 5,
    "tools": [TOOL],
    "tool_choice": "required",
    "reasoning_effort": "none",
    "think": False,
    "chat_template_kwargs": {"enable_thinking": False},
    "top_logprobs": 3,
    "verbosity": "low",
}


@pytest.mark.parametrize("field", NOT_FOR_COMPLETIONS)
def test_fields_of_chats_are_refused_for_texts(field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        complete(prompt="x", **{field: NOT_FOR_COMPLETIONS[field]})
    assert raised.value.param == field


HARMLESS: list[dict[str, Any]] = [
    {"include_reasoning": True, "skip_special_tokens": True, "do_sample": True, "reasoning_format": "auto"},
    {"repeat_penalty": 1.0, "typical_p": 1, "tfs_z": 1, "mirostat": 0, "num_predict": -1, "best_of": 1},
    {"stream_options": {"include_usage": False, "include_obfuscation": False}},
    {"mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "penalty_last_n": -1, "encoder_repetition_penalty": 1},
    {"negative_prompt": "", "guidance_scale": 1, "add_special_tokens": False, "disable_reasoning": False},
    {"tools": [], "tool_choice": "none", "prompt": None, "echo": False, "suffix": ""},
    {"messages": [MESSAGES[0] | {"cache_control": {"type": "ephemeral"}, "images": []}]},
    {"response_format": {"type": "text", "schema": None, "json_schema": None}},
    {"chat_template_kwargs": {"custom": None}},
    {"stop": ""},
    {"stop": ["", ""]},
    {"top_k": -1},
    {"add_generation_prompt": True},
    {"continue_final_message": False},
]


@pytest.mark.parametrize("fields", HARMLESS, ids=str)
def test_values_that_change_nothing_are_taken(fields: dict[str, Any]) -> None:
    assert msg(fields) == chat()


def msg(fields: dict[str, Any]) -> Any:
    asked = chat(**fields)
    choice = prompt_of(**fields).tool_choice
    return chat(**fields | {"tool_choice": None}) if choice == "none" else asked


def test_every_foreign_name_has_something_to_do_instead() -> None:
    def hints(level: Level) -> list[str]:
        return [
            level.unknown,
            *level.instead.values(),
            *(hint for each in level.inside.values() for hint in hints(each)),
        ]

    for level in (foreign.CHAT, foreign.COMPLETION):
        assert all(hint.endswith(".") for hint in hints(level))


def test_ranges_as_clients_use_them() -> None:
    assert chat(stop=["", "a", ""]).sampling.stop == ("a",)
    assert chat(stop=[str(i) for i in range(64)]).sampling.stop == tuple(str(i) for i in range(64))
    assert chat(top_p=0, temperature=1).sampling == SamplingParams(512, 1.0, 0.0)
    for wrong in (-0.1, 1.5):
        with pytest.raises(InvalidInput, match="top_p must be between 0 and 1"):
            complete(prompt="x", top_p=wrong)
    for field in ("max_tokens", "max_completion_tokens"):
        assert chat(**{field: -1}).sampling.max_tokens == 2**31 - 1
    with pytest.raises(InvalidInput, match="-1 is as many as the context holds"):
        chat(max_tokens=0)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"type": "json_object", "schema": SCHEMA}, "schema"),
        ({"type": "json_schema", "schema": SCHEMA}, "schema"),
        ({"type": "json_schema", "name": "x", "schema": SCHEMA}, "schema"),
        ({"type": "json_object", "json_schema": {"name": "x", "schema": SCHEMA}}, "json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}}, "json_schema.schema"),
    ],
    ids=str,
)
def test_a_schema_holds_wherever_it_stands(asked: dict[str, Any], field: str) -> None:
    meant = ResponseFormat("json_schema", SCHEMA_TEXT, f"response_format.{field}")
    assert chat(response_format=asked).sampling.response_format == meant


def test_an_empty_schema_of_an_object_is_any_object() -> None:
    asked = {"type": "json_object", "schema": {}}
    assert chat(response_format=asked).sampling.response_format == ResponseFormat("json_object")


@pytest.mark.parametrize("strict", [None, True, False])
def test_only_strict_false_is_lenient(strict: bool | None) -> None:
    named = {"name": "x", "schema": SCHEMA, "strict": strict}
    wanted = chat(response_format={"type": "json_schema", "json_schema": named}).sampling.response_format
    assert wanted is not None
    assert wanted.lenient is (strict is False)
    tool = TOOL | {"function": TOOL["function"] | {"strict": strict}}  # type: ignore[operator]
    assert prompt_of(tools=[tool]).tools[0].lenient is (strict is False)


EMPTY = {"type": "object", "properties": {}}
CITY = {"city": {"type": "string"}}


@pytest.mark.parametrize(
    ("parameters", "meant"),
    [
        (None, EMPTY),
        ({}, EMPTY),
        ({"type": None, "properties": None, "required": None}, EMPTY),
        ({"type": "object", "properties": []}, EMPTY),
        ({"properties": CITY}, {"type": "object", "properties": CITY}),
        ({"type": ["object", "null"], "properties": CITY}, {"type": "object", "properties": CITY}),
        (
            {"type": "object", "properties": {"city": {"type": "string", "enum": None}}},
            {"type": "object", "properties": CITY},
        ),
        (
            {"properties": {"type": {"const": None}, "const": {"type": "null"}}},
            {"type": "object", "properties": {"type": {"const": None}, "const": {"type": "null"}}},
        ),
    ],
    ids=str,
)
def test_schemas_of_tools_are_read_as_they_are_sent(parameters: dict[str, Any] | None, meant: dict[str, Any]) -> None:
    [tool] = prompt_of(tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}]).tools
    assert json.loads(tool.parameters) == meant


@pytest.mark.parametrize(
    ("parameters", "inside"),
    [
        ({"type": "string"}, "type"),
        ({"type": "array", "items": {}}, "type"),
        ({"properties": ["city"]}, "properties"),
        ({"properties": {"city": "string"}}, "properties.city"),
        ({"properties": CITY, "required": "city"}, "required"),
        ({"properties": CITY, "required": [1]}, "required"),
    ],
    ids=str,
)
def test_a_schema_of_a_tool_that_is_none_is_refused_where_it_is_wrong(parameters: dict[str, Any], inside: str) -> None:
    bad = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    assert refused(tools=[TOOL, bad]).param == f"tools[1].function.parameters.{inside}"


@pytest.mark.parametrize("arguments", ["", " \n", None, {}, "{}"], ids=str)
def test_arguments_that_are_nothing_are_an_empty_object(arguments: object) -> None:
    called = CALLED | {"tool_calls": [CALL | {"function": {"name": "weather", "arguments": arguments}}]}
    assert prompt_of(messages=[*MESSAGES, called]).messages[1].tool_calls[0].arguments.strip() == "{}"


def test_arguments_can_be_an_object_and_can_be_left_out() -> None:
    def arguments(function: dict[str, Any]) -> str:
        called = CALLED | {"tool_calls": [CALL | {"function": {"name": "weather"} | function}]}
        return prompt_of(messages=[*MESSAGES, called]).messages[1].tool_calls[0].arguments

    assert arguments({"arguments": {"city": "Köln"}}) == '{"city":"Köln"}'
    assert arguments({}) == "{}"
    wide = json.dumps({"a": ["[" * 1000] * 200})
    assert arguments({"arguments": wide}) == wide


@pytest.mark.parametrize(
    "arguments", ['{"city": "Par', "{", "[1]", "null", "5", '"x"', "Paris", '{"a": NaN}', ["x"], 5]
)
def test_arguments_that_are_no_object_are_refused_where_they_stand(arguments: object) -> None:
    called = CALLED | {"tool_calls": [CALL, CALL | {"id": "2", "function": {"name": "f", "arguments": arguments}}]}
    assert refused(messages=[*MESSAGES, called]).param == "messages[1].tool_calls[1].function.arguments"


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": []}, {"content": ""}], ids=str)
def test_an_assistant_that_said_nothing_and_a_tool_without_a_result_are_part_of_a_conversation(
    content: dict[str, Any],
) -> None:
    said = {"role": "assistant", "tool_calls": [], **content}
    asked = prompt_of(messages=[*MESSAGES, said, {"role": "user", "content": "Again."}])
    assert asked.messages[1] == Message("assistant", "")
    asked = prompt_of(messages=[*MESSAGES, CALLED | content, {"role": "tool", "tool_call_id": "call_1", **content}])
    assert [message.content for message in asked.messages] == ["Hi", "", ""]


def test_what_an_assistant_thought_is_kept() -> None:
    for field in ("reasoning_content", "reasoning"):
        messages = [*MESSAGES, ANSWER | {field: "Hm."}, *MESSAGES]
        assert prompt_of(messages=messages).messages[1] == Message("assistant", "It is", reasoning="Hm.")


def test_an_answer_that_was_begun_is_gone_on_with() -> None:
    begun = [*MESSAGES, ANSWER]
    for fields in (
        {"messages": begun},
        {"messages": begun, "continue_final_message": True, "add_generation_prompt": False},
        {"messages": [*MESSAGES, ANSWER | {"prefix": True}]},
        {"messages": [*MESSAGES, ANSWER | {"partial": True}]},
    ):
        asked = prompt_of(**fields)
        assert (asked.continue_last, asked.messages[-1]) == (True, Message("assistant", "It is"))
    for complete_ in ({"add_generation_prompt": True}, {"continue_final_message": False}):
        assert not prompt_of(messages=begun, **complete_).continue_last
    for nothing in ("", None, " \n"):
        asked = prompt_of(messages=[*MESSAGES, ANSWER | {"content": nothing}])
        assert (asked.continue_last, asked.messages) == (False, (Message("user", "Hi"),))
    assert not prompt_of(messages=[*MESSAGES, CALLED], tools=[TOOL]).continue_last


def test_a_tool_is_a_function_also_when_it_does_not_say_so() -> None:
    assert prompt_of(tools=[{"function": TOOL["function"]}]) == prompt_of(tools=[TOOL])
