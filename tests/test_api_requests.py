"""What the API takes and what it refuses, field by field. No server is needed to know that."""

from __future__ import annotations

import json
from typing import Any

import pytest

from squish.api.openai.requests import ChatRequest, CompletionRequest
from squish.api.openai.translate import chat_to_generation, completion_to_generation, decode
from squish.errors import InvalidInput
from squish.generation import ChatPrompt, GenerationRequest, Message, SamplingParams, TextPrompt, TokenPrompt

MESSAGES = [{"role": "user", "content": "Hi"}]


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
    assert chat(**given).sampling == SamplingParams(3, 1.0, 0.5, 4, 0.1, 7, ("a", "b"))
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
    {"tools": [], "tool_choice": "auto", "functions": [], "parallel_tool_calls": True},
    {"response_format": {"type": "text"}, "modalities": ["text"]},
    {"n": 1, "user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "no_such_field": [1]},
]


@pytest.mark.parametrize("fields", NEUTRAL_CHAT, ids=lambda fields: ",".join(fields))
def test_fields_that_change_nothing_are_taken(fields: dict[str, Any]) -> None:
    assert chat(**fields) == chat()


UNSUPPORTED_CHAT: dict[str, Any] = {
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"1": 2},
    "frequency_penalty": 0.5,
    "presence_penalty": -1,
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "functions": [{"name": "f"}],
    "response_format": {"type": "json_object"},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy"},
    "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "high",
    "web_search_options": {},
}
UNSUPPORTED_COMPLETION: dict[str, Any] = {"best_of": 2, "echo": True, "suffix": "x", "logprobs": 1}


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
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
    ({"top_k": -1}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"seed": 2**64}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": ""}, "stop"),
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
    ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages[0].role"),
    ({"messages": [*MESSAGES, {"role": "user"}]}, "messages[1].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG_CHAT, ids=str)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        chat(**fields)
    assert raised.value.param == param
    assert raised.value.message.startswith((param, "The role", "Content", "max_tokens"))


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


def test_n_repeats_every_prompt_in_order() -> None:
    assert complete(prompt=["a", "b"], n=2).prompts == tuple(TextPrompt(text) for text in "aabb")
    assert len(chat(n=3).prompts) == 3


def test_content_parts_and_the_developer_role() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = chat(messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}])
    assert asked.prompts == (ChatPrompt((Message("system", "Be brief."), Message("user", "ab"))),)


NOT_JSON = [b"", b"{", b"[]", b'"x"', b"null", b'{"model":"m","messages":"\xff"}', b'{"temperature":NaN}']


@pytest.mark.parametrize("body", [*NOT_JSON, b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"model":"\\ud800"}'])
def test_a_body_that_is_no_request(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(body, ChatRequest)
