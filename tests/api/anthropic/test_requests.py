"""Bodies of the Messages API as generation requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from squish.api.anthropic import translate
from squish.api.anthropic.replies import MessagesReply
from squish.errors import InvalidInput
from squish.generation import ChatPrompt, GenerationRequest, Message, ResponseFormat, SamplingParams, Tool, ToolCall

HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}]}
ARGUMENTS = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"name": "f", "description": "Does.", "input_schema": ARGUMENTS}
SCHEMA = '{"type":"object","properties":{"a":{"type":"integer"}}}'
THINKS: list[tuple[dict[str, Any], bool | None]] = [
    ({"type": "enabled", "budget_tokens": 2000}, True),
    ({"type": "disabled"}, False),
    ({"type": "adaptive", "display": "summarized"}, None),
    ({"type": "between_tools"}, None),
]


def asked(**fields: Any) -> GenerationRequest:
    body = {"model": "m", "max_tokens": 9, "messages": HI} | fields
    read = translate.read_messages(json.dumps(body).encode())
    assert isinstance(read.reply, MessagesReply)
    assert read.stream is bool(fields.get("stream"))
    return read.generation


def prompt(**fields: Any) -> ChatPrompt:
    [found] = asked(**fields).prompts
    assert isinstance(found, ChatPrompt)
    return found


def said(**fields: Any) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in prompt(**fields).messages]


def text(*texts: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": each, "cache_control": {"type": "ephemeral"}} for each in texts]


def test_the_least() -> None:
    sampling = SamplingParams(max_tokens=9)
    assert asked() == GenerationRequest("m", (ChatPrompt((Message("user", "Hi"),)),), sampling)


def test_how_tokens_are_chosen() -> None:
    request = asked(
        temperature=0.2, top_p=0.5, top_k=7, seed=3, stop_sequences=[*"abcdef"], max_tokens=32_000, keep_alive="5m"
    )
    assert request.sampling == SamplingParams(32_000, 0.2, 0.5, 7, seed=3, stop=tuple("abcdef"))
    assert request.keep_alive == 300


@pytest.mark.parametrize(
    ("system", "shown"),
    [
        ("Be brief.", "Be brief."),
        (text("Be brief.", "Be kind."), "Be brief.\n\nBe kind."),
        (
            text("x-anthropic-billing-header: cc_version=2.1.9; cch=4f2a1;", "You are.", "Be kind."),
            "You are.\n\nBe kind.",
        ),
        ("x-anthropic-billing-header: cch=00000;\nYou are.", "You are."),
        (text("See x-anthropic-billing-header: it is a header."), "See x-anthropic-billing-header: it is a header."),
        ("", None),
        ([], None),
        (text("x-anthropic-billing-header: cch=1;"), None),
    ],
)
def test_what_the_system_says(system: Any, shown: str | None) -> None:
    assert said(system=system) == [*([("system", shown)] if shown else []), ("user", "Hi")]


def test_a_system_message_in_the_middle_stays_there() -> None:
    middle = {"role": "system", "content": text("Now in French.")}
    assert said(system="A.", messages=[*HI, {"role": "assistant", "content": "Yes?"}, middle, *HI]) == [
        ("system", "A."), ("user", "Hi"), ("assistant", "Yes?"), ("system", "Now in French."), ("user", "Hi"),
    ]  # fmt: skip


def test_turns_of_the_same_speaker_are_one() -> None:
    messages = [*HI, {"role": "user", "content": text("a", "b")}, {"role": "assistant", "content": text("c", "d")}, *HI]
    assert said(messages=messages) == [("user", "Hi\n\na\n\nb"), ("assistant", "cd"), ("user", "Hi")]


def test_calls_thoughts_and_what_tools_gave_back() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "abc"}
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    answer = {"role": "assistant", "content": [thought, hidden, *text("I call."), *CALLED["content"]]}
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": text("one", "two")},
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "No.", "is_error": True},
        {"type": "tool_result", "tool_use_id": "toolu_1"},
        *text("Go on."),
    ]
    found = prompt(messages=[*HI, answer, {"role": "user", "content": results}], tools=[TOOL])
    assert found.messages == (
        Message("user", "Hi"),
        Message("assistant", "I call.", (ToolCall("toolu_1", "f", '{"a":1}'),), reasoning="Hm."),
        Message("tool", "one\n\ntwo", (), "toolu_1", "f"),
        Message("tool", "Error: No.", (), "toolu_1", "f"),
        Message("tool", "", (), "toolu_1", "f"),
        Message("user", "Go on."),
    )
    assert not found.continue_last
    assert found.tools == (Tool("f", "Does.", SCHEMA, lenient=True, field="tools[0].input_schema"),)


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        (None, "auto"),
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "any", "disable_parallel_tool_use": True}, "required"),
        ({"type": "tool", "name": "f"}, "call:f"),
    ],
)
def test_which_tool_is_to_be_called(choice: Any, meant: str) -> None:
    assert prompt(tools=[TOOL | {"type": "custom", "strict": True}], tool_choice=choice).tool_choice == meant


def test_an_answer_that_has_begun_is_gone_on_with() -> None:
    begun = prompt(messages=[*HI, {"role": "assistant", "content": "{"}])
    assert (begun.continue_last, begun.messages[-1].content) == (True, "{")
    nothing = prompt(messages=[*HI, {"role": "assistant", "content": " "}])
    assert (nothing.continue_last, len(nothing.messages)) == (False, 1)
    assert not prompt(messages=[*HI, CALLED], tools=[TOOL]).continue_last


@pytest.mark.parametrize(("thinking", "thinks"), THINKS)
def test_whether_to_think(thinking: dict[str, Any], thinks: bool | None) -> None:
    found = prompt(thinking=thinking, output_config={"effort": "xhigh"})
    assert (found.thinking, found.effort) == (thinks, "high")


@pytest.mark.parametrize("place", ["output_config.format", "output_format"])
def test_an_answer_in_a_schema(place: str) -> None:
    given = {"type": "json_schema", "schema": ARGUMENTS}
    fields: Any = {"output_format": given} if place == "output_format" else {"output_config": {"format": given}}
    assert asked(**fields).sampling.response_format == ResponseFormat("json_schema", SCHEMA, f"{place}.schema")


def test_what_is_counted_is_what_is_asked() -> None:
    body = {"model": "m", "system": "S", "messages": HI, "tools": [TOOL], "tool_choice": {"type": "none"}}
    whole = body | {"max_tokens": 9, "stream": True}
    for counted in (body, whole):
        assert translate.read_count(json.dumps(counted).encode()) == ("m", prompt(**body))


IGNORED: list[dict[str, Any]] = [
    {"metadata": {"user_id": "u"}},
    {"service_tier": "auto", "inference_geo": "eu", "speed": "fast", "cache_control": {"type": "ephemeral"}},
    {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
    {"container": None, "mcp_servers": [], "n": 1, "stop": []},
    {"tools": [TOOL | {"cache_control": {"type": "ephemeral"}, "eager_input_streaming": True, "input_examples": []}]},
    {"something_new": {"a": 1}, "diagnostics": None},
]


@pytest.mark.parametrize("fields", IGNORED, ids=lambda fields: next(iter(fields)))
def test_what_changes_no_answer_is_ignored(fields: dict[str, Any]) -> None:
    fields = {name: value for name, value in fields.items() if name != "tools"} or fields
    assert prompt(**fields).messages == prompt().messages


def message(role: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": [*blocks]}]}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 2**31}, "max_tokens"),
    ({"model": " "}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "developer", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "assistant", "content": ""}]}, "messages"),
    (message("user", {"type": "image"}), "messages[0].content[0].type"),
    (message("user", {"type": "document"}), "messages[0].content[0].type"),
    (message("user", {"type": "text", "text": "x", "source": {"type": "url"}}), "messages[0].content[0].source"),
    (message("user", {"type": "tool_use", "id": "a", "name": "f"}), "messages[0].content[0].type"),
    (message("user", {"type": "text"}), "messages[0].content[0].text"),
    (message("system", {"type": "thinking", "thinking": "x"}), "messages[0].content[0].type"),
    (message("user", {"type": "tool_result", "content": "x"}), "messages[0].content[0].tool_use_id"),
    (message("user", {"type": "tool_result", "tool_use_id": "x"}), "messages[0].content[0].tool_use_id"),
    (message("assistant", {"type": "tool_result", "tool_use_id": "x"}), "messages[0].content[0].type"),
    (message("assistant", {"type": "tool_use", "name": "f"}), "messages[0].content[0].id"),
    ({"system": [{"type": "image"}]}, "system[0].type"),
    ({"system": 3}, "system"),
    ({"stop_sequences": ["x"] * 65}, "stop_sequences"),
    ({"temperature": 3}, "temperature"),
    ({"thinking": {"type": "sometimes"}}, "thinking.type"),
    ({"thinking": {"type": "enabled", "display": "loud"}}, "thinking.display"),
    ({"thinking": {"type": "enabled", "effort": "low"}}, "thinking.effort"),
    ({"output_config": {"effort": "huge"}}, "output_config.effort"),
    ({"output_config": {"tone": "kind"}}, "output_config.tone"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ({"output_config": {"format": {"type": "regex", "schema": {}}}}, "output_config.format.type"),
    ({"tools": [{"name": "web_search", "type": "web_search_20250305"}]}, "tools[0].type"),
    ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, "tools[0].type"),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
    ({"tools": [{"name": "f g", "input_schema": {}}]}, "tools[0].name"),
    ({"tools": [TOOL, TOOL]}, "tools[1].name"),
    ({"tools": [{"name": "f", "input_schema": {"type": "array"}}]}, "tools[0].input_schema.type"),
    ({"tools": [{"name": "f", "parameters": {"type": "object"}}]}, "tools[0].parameters"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tool_choice": {"type": "required"}, "tools": [TOOL]}, "tool_choice.type"),
    ({"tool_choice": {"type": "tool"}, "tools": [TOOL]}, "tool_choice.name"),
    ({"tool_choice": {"type": "tool", "name": "g"}, "tools": [TOOL]}, "tool_choice.name"),
    ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
    ({"container": "c"}, "container"),
    ({"stop": ["x"]}, "stop"),
    ({"n": 2}, "n"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"logprobs": True}, "logprobs"),
    ({"parallel_tool_calls": False}, "parallel_tool_calls"),
    ({"keep_alive": "soon"}, "keep_alive"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        asked(**fields)
    assert refused.value.param == param
    assert refused.value.message


def test_a_schema_is_for_a_whole_answer() -> None:
    given = {"format": {"type": "json_schema", "schema": {}}}
    with pytest.raises(InvalidInput, match="beginning of one"):
        asked(messages=[*HI, {"role": "assistant", "content": "{"}], output_config=given)
    with pytest.raises(InvalidInput, match="send one of them"):
        asked(output_config=given, output_format=given["format"])


def test_turns_of_one_speaker_are_joined_in_one_pass() -> None:
    many = [{"role": "user", "content": "x"}] * 20_000
    system = [{"type": "text", "text": "x-anthropic-billing-header: " + " " * 1_000_000}] * 2
    [(role, content)] = said(messages=many, system=system)
    assert (role, content.count("x")) == ("user", 20_000)
