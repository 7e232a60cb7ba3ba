"""What clients post to /v1/responses, as the engine gets it, and what is refused by the name that the client wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from squish.api.dialect import Asked
from squish.api.responses import foreign, thoughts, translate
from squish.api.responses.requests import ResponsesRequest
from squish.api.responses.store import ResponseStore
from squish.errors import InvalidInput
from squish.generation import ChatPrompt, Message, ResponseFormat, SamplingParams, ToolCall

WEATHER = {"type": "function", "name": "weather", "description": "Now.", "parameters": {"type": "object"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def asked(**fields: Any) -> Asked:
    return translate.read(json.dumps({"model": "m", "input": "Hi"} | fields).encode(), ResponseStore())


def prompt(**fields: Any) -> ChatPrompt:
    [found] = asked(**fields).generation.prompts
    assert isinstance(found, ChatPrompt)
    return found


def refused(**fields: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as raised:
        asked(**fields)
    assert raised.value.param
    return raised.value


def call(id: str, name: str = "weather", arguments: str = "{}") -> dict[str, str]:
    return {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "arguments": arguments}


def output(id: str, text: Any = "rain") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": text}


def test_a_string_is_what_the_user_says() -> None:
    assert prompt(instructions="Be brief.").messages == (Message("system", "Be brief."), Message("user", "Hi"))
    assert prompt(input="").messages == (Message("user", ""),)


def test_nothing_given_is_the_longest_answer_in_squishs_own_sampling() -> None:
    assert asked().generation.sampling == SamplingParams(max_tokens=2**31 - 1)
    assert asked(max_output_tokens=-1).generation == asked().generation
    assert asked(max_output_tokens=9, temperature=0, top_p=0.5).generation.sampling == SamplingParams(9, 0, 0.5)


def test_the_turns_of_an_agent() -> None:
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "No sudo."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "Wea"}, {"type": "text", "text": "ther?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        call("a"),
        call("b", arguments='{"city": "Rome"}'),
        output("b", [{"type": "input_text", "text": "sun"}]),
        output("a"),
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "So."}]},
        call("c", arguments=""),
        output("c", ""),
        {"role": "system", "content": "Later."},
    ]
    calls = (ToolCall("a", "weather", "{}"), ToolCall("b", "weather", '{"city": "Rome"}'))
    assert prompt(input=items, instructions="Be brief.").messages == (
        Message("system", "Be brief.\n\nNo sudo."),
        Message("user", "Weather?"),
        Message("assistant", "I look.", calls, reasoning="Hm."),
        Message("tool", "sun", tool_call_id="b", name="weather"),
        Message("tool", "rain", tool_call_id="a", name="weather"),
        Message("assistant", "", (ToolCall("c", "weather", "{}"),), reasoning="So."),
        Message("tool", "", tool_call_id="c", name="weather"),
        Message("system", "Later."),
    )


def test_thoughts_that_come_back_sealed() -> None:
    seal = {"type": "reasoning", "summary": [], "encrypted_content": thoughts.sealed("Hm, ä.")}
    said = {"role": "assistant", "content": "Hi."}
    assert prompt(input=[seal, said]).messages == (Message("assistant", "Hi.", reasoning="Hm, ä."),)
    for foreign_seal in ("gAAAAAB=", "squish:ä", "squish:/w=="):
        assert prompt(input=[seal | {"encrypted_content": foreign_seal}, said]).messages[0].reasoning == ""
    assert [message.content for message in prompt(input=[seal, {"role": "user", "content": "Go on."}]).messages] == [
        "Go on."
    ]


def test_what_hosted_tools_did_is_left_out_and_so_are_hosted_tools() -> None:
    items = [{"type": "web_search_call", "id": "ws_1", "action": {"type": "search"}}, {"role": "user", "content": "x"}]
    tools = [{"type": "web_search"}, WEATHER, {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}}]
    found = asked(input=items, tools=tools)
    assert found.left_out == ("web_search", "custom", "web_search_call")
    [given] = found.generation.prompts
    assert isinstance(given, ChatPrompt)
    assert [tool.name for tool in given.tools] == ["weather"]
    assert given.messages == (Message("user", "x"),)


def test_an_image_that_a_tool_gave_is_left_out_and_the_model_is_told() -> None:
    parts = [{"type": "input_text", "text": "Seen: "}, {"type": "input_image", "image_url": "data:image/png;base64,"}]
    found = asked(input=[call("a"), output("a", parts)])
    [given] = found.generation.prompts
    assert isinstance(given, ChatPrompt)
    assert given.messages[-1].content == "Seen: [image left out: this model reads text only]"
    assert found.left_out == ("input_image",)


def test_a_function_is_held_strictly_only_where_that_is_asked_for() -> None:
    assert [tool.lenient for tool in prompt(tools=[WEATHER]).tools] == [True]
    assert [tool.lenient for tool in prompt(tools=[WEATHER | {"strict": True}]).tools] == [False]


def test_the_functions_of_a_namespace() -> None:
    long = "x" * 60
    tools = [
        {"type": "namespace", "name": "mcp__files__", "description": "", "tools": [WEATHER | {"name": "read"}]},
        {"type": "namespace", "name": "agents", "tools": [WEATHER, {"type": "custom", "name": "free"}]},
        {"type": "namespace", "name": long, "tools": [WEATHER | {"name": "a" * 60}, WEATHER | {"name": "a" * 59}]},
    ]
    names = [tool.name for tool in prompt(tools=tools).tools]
    assert names[:2] == ["mcp__files__read", "agents__weather"]
    assert len(set(names)) == 4
    assert all(len(name) <= 64 for name in names)
    said = call("a", "read") | {"namespace": "mcp__files__"}
    assert prompt(input=[said, output("a")], tools=tools).messages[0].tool_calls[0].name == "mcp__files__read"
    assert prompt(tools=tools, tool_choice={"type": "function", "name": "read"}).tool_choice == "call:mcp__files__read"


def test_tool_choice() -> None:
    other = WEATHER | {"name": "time"}
    for word in ("none", "auto", "required"):
        assert prompt(tools=[WEATHER], tool_choice=word).tool_choice == word
    chosen = prompt(tools=[WEATHER, other], tool_choice={"type": "function", "name": "time"})
    assert (chosen.tool_choice, len(chosen.tools)) == ("call:time", 2)
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]}
    left = prompt(tools=[WEATHER, other], tool_choice=allowed)
    assert (left.tool_choice, [tool.name for tool in left.tools]) == ("required", ["time"])


def test_formats() -> None:
    def held(**given: Any) -> ResponseFormat | None:
        return asked(text={"format": given}).generation.sampling.response_format

    assert held(type="text") is None
    assert held(type="json_object") == ResponseFormat("json_object", field="text.format")
    text = json.dumps(SCHEMA, separators=(",", ":"))
    strict = held(type="json_schema", name="a", schema=SCHEMA, strict=True)
    assert strict == ResponseFormat("json_schema", text, "text.format.schema")
    lenient = held(type="json_schema", name="a", schema=SCHEMA, strict=False)
    assert lenient == ResponseFormat("json_schema", text, "text.format.schema", lenient=True)


@pytest.mark.parametrize(
    ("effort", "thinking", "degree"),
    [
        (None, None, None),
        ("none", False, None),
        ("minimal", False, "low"),
        ("high", True, "high"),
        ("xhigh", True, "high"),
    ],
)
def test_efforts(effort: str | None, thinking: bool | None, degree: str | None) -> None:
    found = prompt(reasoning={"effort": effort, "summary": "auto"})
    assert (found.thinking, found.effort) == (thinking, degree)


HARMLESS: list[dict[str, Any]] = [
    {"store": False}, {"metadata": {"a": "b"}}, {"user": "u"}, {"prompt_cache_key": "k"}, {"service_tier": "auto"},
    {"truncation": "disabled"}, {"background": False}, {"text": {"verbosity": "medium"}}, {"conversation": None},
    {"include": ["web_search_call.action.sources"]}, {"max_tool_calls": 3}, {"stream_options": {}}, {"n": 1},
    {"prompt": None}, {"client_metadata": {"a": "b"}}, {"reasoning": {"context": "auto"}}, {"tools": []},
]  # fmt: skip


@pytest.mark.parametrize("fields", HARMLESS, ids=str)
def test_what_changes_nothing(fields: dict[str, Any]) -> None:
    assert asked(**fields).generation == asked().generation


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"background": True}, "background"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"truncation": "auto"}, "truncation"),
    ({"messages": [{"role": "user", "content": "x"}]}, "messages"),
    ({"max_tokens": 5}, "max_tokens"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"text": {"verbosity": "low"}}, "text.verbosity"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_object", "schema": {}}}}, "text.format.schema"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"model": " "}, "model"),
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": [{"content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
    ({"input": [call("a", arguments="[]")]}, "input[0].arguments"),
    ({"input": [output("a")]}, "input[0].call_id"),
    ({"input": [call("a"), {"type": "function_call_output", "call_id": "a"}]}, "input[1].output"),
    ({"input": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "input[0].tool_calls"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
    ({"tools": [WEATHER | {"name": "a b"}]}, "tools[0].name"),
    ({"tools": [WEATHER | {"parameters": {"type": "array"}}]}, "tools[0].parameters.type"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].function"),
    ({"tools": [{"type": "namespace", "name": "n", "tools": ["x"]}]}, "tools[0].tools[0]"),
    ({"tools": [{"type": "namespace", "tools": []}]}, "tools[0].name"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice.name"),
    ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
    ({"tool_choice": {"type": "allowed_tools", "tools": [{"type": "x", "name": "f"}]}}, "tool_choice.tools[0].name"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"guided_json": {"a": 1}}, "guided_json"),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"add_generation_prompt": False}, "add_generation_prompt"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_would_change_the_answer_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert param.rpartition(".")[2] in error.message or "role" in param or "type" in param


def test_hints_name_fields_of_this_api() -> None:
    hints = [
        hint for level in (foreign.RESPONSES, *foreign.RESPONSES.inside.values()) for hint in level.instead.values()
    ]
    for word in ("response_format", "max_tokens", "reasoning_effort", "messages"):
        assert not [hint for hint in hints if word in hint]
    assert not set(foreign.RESPONSES.instead) & set(ResponsesRequest.__struct_fields__)
