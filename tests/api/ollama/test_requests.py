"""What a body in Ollama's shapes means, and what is wrong with one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from squish.api.dialect import Asked
from squish.api.ollama import translate
from squish.api.ollama.requests import NamedModel
from squish.api.ollama.translate import LoadRequest
from squish.errors import InvalidInput
from squish.generation import ChatPrompt, GenerationRequest, Message, SamplingParams, TextPrompt, ToolCall

MESSAGES = [{"role": "user", "content": "Hi"}]
CALL = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def read(path: str, fields: dict[str, Any]) -> Asked | LoadRequest:
    reader = translate.read_chat if path == "chat" else translate.read_generate
    return reader(json.dumps({"model": "m"} | fields).encode())


def chat(**fields: Any) -> GenerationRequest:
    asked = read("chat", {"messages": MESSAGES} | fields)
    assert isinstance(asked, Asked)
    return asked.generation


def generate(**fields: Any) -> GenerationRequest:
    asked = read("generate", {"prompt": "Hi"} | fields)
    assert isinstance(asked, Asked)
    return asked.generation


def prompt(request: GenerationRequest) -> ChatPrompt:
    [found] = request.prompts
    assert isinstance(found, ChatPrompt)
    return found


def options(**given: Any) -> SamplingParams:
    return chat(options=given).sampling


def test_an_answer_has_no_limit_and_comes_as_a_stream_unless_asked_otherwise() -> None:
    assert options() == SamplingParams(max_tokens=2**31 - 1)
    for stream, expected in ((None, True), (True, True), (False, False)):
        asked = read("chat", {"messages": MESSAGES, "stream": stream})
        assert isinstance(asked, Asked)
        assert asked.stream is expected


def test_every_option_that_is_done() -> None:
    found = options(
        num_predict=7, temperature=1, top_p=0.5, top_k=20.0, min_p=0.1, seed=3.0, stop=["a", ""], repeat_penalty=1.1,
        repeat_last_n=9, presence_penalty=0.5, frequency_penalty=-0.5,
    )  # fmt: skip
    assert found == SamplingParams(
        max_tokens=7, temperature=1.0, top_p=0.5, top_k=20, min_p=0.1, seed=3, stop=("a",), repetition_penalty=1.1,
        repetition_window=9, presence_penalty=0.5, frequency_penalty=-0.5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"num_predict": -1}, "max_tokens", 2**31 - 1),
        ({"num_predict": -2}, "max_tokens", 2**31 - 1),
        ({"num_predict": 0}, "max_tokens", 2**31 - 1),
        ({"seed": -1}, "seed", None),
        ({"seed": 0}, "seed", 0),
        ({"top_k": -1}, "top_k", 0),
        ({"top_p": 0}, "top_p", 0.0),
        ({"stop": "END"}, "stop", ("END",)),
        ({"repeat_penalty": 1.2}, "repetition_window", 64),
        ({"repeat_penalty": 1.2, "repeat_last_n": -1}, "repetition_window", 0),
        ({"repeat_penalty": 1.2, "repeat_last_n": 0}, "repetition_penalty", 1.0),
        ({"repeat_last_n": 33}, "repetition_penalty", 1.0),
        ({"stop": [str(i) for i in range(9)]}, "stop", tuple(str(i) for i in range(9))),
    ],
    ids=str,
)
def test_values_that_mean_something_special(given: dict[str, Any], field: str, value: object) -> None:
    assert getattr(options(**given), field) == value


def test_what_changes_no_answer_is_ignored() -> None:
    harmless = {
        "num_ctx": 8192.0, "num_keep": 4, "num_batch": 512, "num_gpu": -1, "main_gpu": 0, "num_thread": 8,
        "numa": False, "low_vram": False, "f16_kv": True, "logits_all": False, "vocab_only": False, "use_mmap": True,
        "use_mlock": False, "embedding_only": False, "mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1,
        "typical_p": 1.0, "tfs_z": 1, "penalize_newline": True, "an_option_of_tomorrow": 3, "stop": None,
        "temperature": None,
    }  # fmt: skip
    assert options(**harmless) == options()
    assert chat(truncate=True, shift=False, something={"new": 1}, tool_choice="auto") == chat()
    assert generate(suffix="", template="", system="", context=[], images=[], raw=False) == generate()


def test_formats() -> None:
    assert chat(format="").sampling.response_format is None
    found = chat(format="json").sampling.response_format
    assert found is not None
    assert (found.kind, found.field) == ("json_object", "format")
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    held = chat(format=schema).sampling.response_format
    assert held is not None
    assert (held.kind, json.loads(held.text), held.field, held.lenient) == ("json_schema", schema, "format", True)


@pytest.mark.parametrize(
    ("think", "thinking", "effort"),
    [
        (None, None, None),
        (True, True, None),
        (False, False, None),
        ("low", True, "low"),
        ("medium", True, "medium"),
        ("high", True, "high"),
        ("max", True, "high"),
        ("", None, None),
    ],
)
def test_whether_to_think(think: bool | str | None, thinking: bool | None, effort: str | None) -> None:
    for found in (prompt(chat(think=think)), prompt(generate(think=think))):
        assert (found.thinking, found.effort) == (thinking, effort)


def test_a_text_is_a_question_or_raw() -> None:
    assert prompt(generate(system="Be brief.")).messages == (Message("system", "Be brief."), Message("user", "Hi"))
    assert generate(raw=True).prompts == (TextPrompt("Hi"),)


@pytest.mark.parametrize("given", ["5m", 300, "300s", 300.0])
def test_how_long_a_model_stays(given: object) -> None:
    assert chat(keep_alive=given).keep_alive == 300


@pytest.mark.parametrize("path", ["chat", "generate"])
@pytest.mark.parametrize(("given", "seconds"), [(0, 0), ("0", 0), (-1, -1), ("-1m", -60), (None, None), ("10m", 600)])
def test_nothing_to_answer_loads_or_unloads(path: str, given: object, seconds: float | None) -> None:
    empties: list[dict[str, Any]] = [{}, {"messages": []} if path == "chat" else {"prompt": ""}]
    for empty in empties:
        kept = read(path, {"keep_alive": given} | empty)
        assert isinstance(kept, LoadRequest)
        assert (kept.model, kept.keep_alive) == ("m", seconds)


def test_calls_are_objects_and_results_find_their_call() -> None:
    found = prompt(
        chat(
            messages=[
                *MESSAGES,
                {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [CALL, CALL]},
                {"role": "tool", "content": "sunny", "tool_name": "weather"},
                {"role": "tool", "content": "rainy"},
                {"role": "tool", "content": "late", "tool_name": "clock", "tool_call_id": "x"},
            ],
            tools=[TOOL],
        )
    )
    calls = (
        ToolCall("call_1_0", "weather", '{"city":"Paris"}'),
        ToolCall("call_1_1", "weather", '{"city":"Paris"}'),
    )
    assert found.messages[1:] == (
        Message("assistant", "", calls, reasoning="Hm."),
        Message("tool", "sunny", (), "call_1_0", "weather"),
        Message("tool", "rainy", (), "call_1_1", "weather"),
        Message("tool", "late", (), "x", "clock"),
    )
    assert [tool.name for tool in found.tools] == ["weather"]
    assert not found.continue_last


def test_ids_of_calls_are_kept() -> None:
    given = [
        {"role": "assistant", "tool_calls": [CALL | {"id": "a"}, CALL | {"id": "b"}]},
        {"role": "tool", "content": "second", "tool_call_id": "b"},
    ]
    [called, result] = prompt(chat(messages=given)).messages
    assert [call.id for call in called.tool_calls] == ["a", "b"]
    assert (result.tool_call_id, result.name) == ("b", "weather")


def test_an_answer_that_has_begun_goes_on() -> None:
    begun = {"role": "assistant", "content": "The capital"}
    assert prompt(chat(messages=[*MESSAGES, begun])).continue_last
    empty = prompt(chat(messages=[*MESSAGES, {"role": "Assistant", "content": ""}]))
    assert (len(empty.messages), empty.continue_last) == (1, False)
    with pytest.raises(InvalidInput) as refused:
        chat(messages=[*MESSAGES, begun], format="json")
    assert refused.value.param == "format"


WRONG_CHATS: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model"),
    ({"model": 3}, "model"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": [{"role": "king", "content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, "messages[0].images"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "assistant", "content": ""}]}, "messages"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        "messages[0].tool_calls[0].function.arguments",
    ),
    ({"tools": [{"type": "code", "function": {"name": "f"}}]}, "tools[0].type"),
    ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"stream": "yes"}, "stream"),
    ({"format": "xml"}, "format"),
    ({"format": 3}, "format"),
    ({"think": "hard"}, "think"),
    ({"keep_alive": "soon"}, "keep_alive"),
    ({"keep_alive": True}, "keep_alive"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"temperature": 0.5}, "temperature"),
    ({"max_tokens": 5}, "max_tokens"),
    ({"options": {"temperature": 3}}, "options.temperature"),
    ({"options": {"temperature": "hot"}}, "options.temperature"),
    ({"options": {"top_p": 2}}, "options.top_p"),
    ({"options": {"min_p": -1}}, "options.min_p"),
    ({"options": {"top_k": 2**40}}, "options.top_k"),
    ({"options": {"num_predict": -3}}, "options.num_predict"),
    ({"options": {"num_predict": 1e300}}, "options.num_predict"),
    ({"options": {"seed": 2**64}}, "options.seed"),
    ({"options": {"repeat_penalty": 0}}, "options.repeat_penalty"),
    ({"options": {"repeat_last_n": -2}}, "options.repeat_last_n"),
    ({"options": {"repeat_penalty": 1.1, "penalize_newline": False}}, "options.penalize_newline"),
    ({"options": {"mirostat": 1}}, "options.mirostat"),
    ({"options": {"mirostat": True}}, "options.mirostat"),
    ({"options": {"typical_p": 0.5}}, "options.typical_p"),
    ({"options": {"tfs_z": 0.5}}, "options.tfs_z"),
    ({"options": {"stop": ["x"] * 65}}, "options.stop"),
    ({"options": {"max_tokens": 5}}, "options.max_tokens"),
    ({"options": {"presence_penalty": 3}}, "options.presence_penalty"),
    ({"options": [1]}, "options"),
    ({"temperature": 0}, "temperature"),
    ({"seed": 0}, "seed"),
    ({"top_p": 0.0}, "top_p"),
    ({"mirostat": 1}, "mirostat"),
    ({"template": "x"}, "template"),
    ({"raw": True}, "raw"),
    ({"n": 2}, "n"),
    ({"grammar": "x"}, "grammar"),
    ({"stop_sequences": ["x"]}, "stop_sequences"),
    ({"enable_thinking": False}, "enable_thinking"),
    ({"parallel_tool_calls": False}, "parallel_tool_calls"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG_CHATS, ids=str)
def test_a_wrong_field_of_a_chat_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        chat(**fields)
    assert refused.value.param == param
    assert param in refused.value.message or "role" in param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"raw": True, "system": "Be brief."}, "system"),
        ({"suffix": "end"}, "suffix"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1, 2]}, "context"),
        ({"images": ["aGk="]}, "images"),
        ({"messages": MESSAGES}, "messages"),
        ({"width": 512}, "width"),
        ({"prompt": ["a", "b"]}, "prompt"),
    ],
)
def test_a_wrong_field_of_a_text_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        generate(**fields)
    assert refused.value.param == param


def test_a_model_is_named_by_either_field() -> None:
    assert translate.read_named(b'{"name": "a:1b"}', NamedModel)[1] == "a:1b"
    assert translate.read_named(b'{"name": "a:1b", "model": "b"}', NamedModel)[1] == "b"
    for body in (b"{}", b'{"model": " "}'):
        with pytest.raises(InvalidInput, match="model is missing"):
            translate.read_named(body, NamedModel)
