"""The routes that take bodies, each with a good body and its dialect's form of an error. A new dialect is a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass(frozen=True)
class Spoken:
    """good: a body that is answered. text: where in it a text stands. error: asserts the form of an error's JSON.

    more: fields with which a body is also answered, beside those that most dialects have (`usual`). method: POST as a
    rule.
    """

    path: str
    good: dict[str, Any]
    text: str
    error: Callable[[int, Any], None]
    more: Mapping[str, Any] = field(default_factory=lambda: {"n": 2, "max_tokens": 4})
    usual: Mapping[str, Any] = field(default_factory=lambda: {"stop": ["a"], "temperature": 0.5, "seed": 1})
    method: str = "POST"

    def __str__(self) -> str:
        return self.path

    def saying(self, text: Any) -> dict[str, Any]:
        """The good body with another text in it."""
        body: dict[str, Any] = {**self.good}
        if self.text == "messages":
            body["messages"] = [{"role": "user", "content": text}]
        else:
            body[self.text] = text
        return body


def openai_error(status: int, body: Any) -> None:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    expected = "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
    assert body["error"]["type"] == expected


def ollama_error(status: int, body: Any) -> None:
    assert set(body) == {"error"}
    assert isinstance(body["error"], str)
    assert body["error"]


def anthropic_error(status: int, body: Any) -> None:
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["request_id"]
    assert set(body["error"]) == {"type", "message"}
    assert body["error"]["message"]
    known = {401: "authentication", 403: "permission", 404: "not_found", 408: "timeout", 429: "rate_limit"}
    expected = "request_too_large" if status == 413 else f"{known.get(status, 'invalid_request')}_error"
    assert body["error"]["type"] == expected


OLLAMA_MORE = {
    "options": {"stop": ["a"], "temperature": 0.5, "num_predict": 4, "seed": 1, "num_ctx": 4096},
    "keep_alive": "5m",
    "format": "json",
    "think": False,
}

MESSAGE = {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
MESSAGE_MORE = {
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "stop_sequences": ["a"],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "auto"},
    "temperature": 0.5,
}

SPOKEN = (
    Spoken(
        "/v1/chat/completions",
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        "messages",
        openai_error,
    ),
    Spoken("/v1/completions", {"model": "m", "prompt": "Hi"}, "prompt", openai_error),
    Spoken(
        "/v1/embeddings",
        {"model": "m", "input": "Hi"},
        "input",
        openai_error,
        {"dimensions": 1, "encoding_format": "base64", "truncate": True, "stream": None},
        usual={},
    ),
    Spoken("/v1/responses", {"model": "m", "input": "Hi"}, "input", openai_error, {"max_output_tokens": 4}),
    Spoken(
        "/api/chat",
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        "messages",
        ollama_error,
        OLLAMA_MORE,
        usual={},
    ),
    Spoken("/api/generate", {"model": "m", "prompt": "Hi"}, "prompt", ollama_error, OLLAMA_MORE, usual={}),
    Spoken("/v1/messages", MESSAGE, "messages", anthropic_error, MESSAGE_MORE, usual={}),
    Spoken("/v1/messages/count_tokens", MESSAGE, "messages", anthropic_error, MESSAGE_MORE, usual={}),
)

"""Routes whose bodies ask for an answer."""

ABOUT_MODELS = (
    Spoken("/api/embed", {"model": "m", "input": ["Hi", "x"]}, "input", ollama_error, {"dimensions": 1}, usual={}),
    Spoken(
        "/v1/rerank", {"model": "m", "query": "a", "documents": ["b"]}, "query", openai_error, {"top_n": 1}, usual={}
    ),
    Spoken("/api/embeddings", {"model": "m", "prompt": "Hi"}, "prompt", ollama_error, {"keep_alive": 1}, usual={}),
    Spoken("/api/show", {"model": "m"}, "model", ollama_error, {"verbose": True}, usual={}),
    Spoken("/api/pull", {"model": "m"}, "model", ollama_error, {"insecure": True}, usual={}),
    Spoken("/api/copy", {"source": "m", "destination": "x"}, "destination", ollama_error, {"a": 1}, usual={}),
    Spoken("/api/delete", {"model": "m"}, "model", ollama_error, {"name": "m"}, usual={}, method="DELETE"),
)
"""Routes that make vectors, and that show and change what is installed."""


FIRST = frozenset({"/v1/chat/completions", "/api/chat", "/v1/messages", "/v1/rerank", "/api/pull"})
"""One route of each dialect, and one of each kind that is about models."""


def for_each(*routes: Spoken) -> pytest.MarkDecorator:
    """A test for each of these routes; others than FIRST are read by the same code, and belong to the long tests."""
    parameters = [pytest.param(route, marks=() if route.path in FIRST else pytest.mark.long) for route in routes]
    return pytest.mark.parametrize("spoken", parameters, ids=str)
