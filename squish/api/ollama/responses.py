"""What clients of Ollama get back: whole answers, lines of streams, and what is known of models. Structs only.

Durations are nanoseconds, times UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType


class CalledFunction(msgspec.Struct, frozen=True):
    index: int
    name: str
    arguments: dict[str, Any]


class CalledTool(msgspec.Struct, frozen=True):
    id: str
    function: CalledFunction


class TokenLogprob(msgspec.Struct, frozen=True):
    """bytes: of the token in UTF-8; a token can be a part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class Logprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TokenLogprob] | UnsetType = UNSET


class AnswerMessage(msgspec.Struct, frozen=True, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[CalledTool] | UnsetType = UNSET


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What answers have in common; from done_reason on in the last line of a stream, and in an answer in one piece."""

    model: str
    created_at: datetime
    done: bool
    done_reason: Literal["stop", "length", "load", "unload"] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET
    logprobs: list[Logprob] | UnsetType = UNSET


class ChatResponse(Answer, frozen=True, kw_only=True):
    """An answer to POST /api/chat, or a line of one."""

    message: AnswerMessage


class GenerateResponse(Answer, frozen=True, kw_only=True):
    """An answer to POST /api/generate, or a line of one."""

    response: str
    thinking: str | UnsetType = UNSET


class Details(msgspec.Struct, frozen=True, kw_only=True):
    parent_model: str = ""
    format: str = "safetensors"
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """size in bytes. digest: of the model's files, by their hashes."""

    name: str
    model: str
    modified_at: datetime
    size: int
    digest: str
    details: Details


class ListedModels(msgspec.Struct, frozen=True):
    """The answer to GET /api/tags."""

    models: list[ListedModel]


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """size: of the weights, in bytes; size_vram: 0 on a CPU. expires_at: when it is unloaded if nobody asks."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: datetime
    size_vram: int
    context_length: int


class LoadedModels(msgspec.Struct, frozen=True):
    """The answer to GET /api/ps."""

    models: list[LoadedModel]


class ShownModel(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to POST /api/show. template: the chat template, a Jinja program. parameters: the defaults here."""

    license: str
    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: datetime


class Version(msgspec.Struct, frozen=True):
    """The answer to GET /api/version."""

    version: str


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A line of POST /api/pull. digest: what total and completed, in bytes, are about."""

    status: str
    digest: str | UnsetType = UNSET
    total: int | UnsetType = UNSET
    completed: int | UnsetType = UNSET
