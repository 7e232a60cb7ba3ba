"""What the window of one request shows beyond its row: where its time went, what it asked for, which tokens it used.

It is what another program is told of a request too, so it holds no prompt, no answer, and no text of a schema, a
grammar or a stop string: of these only how much there is.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from squish.embeddings import EmbeddingRequest
from squish.generation import (
    LARGEST,
    ChatPrompt,
    FinishReason,
    FormatKind,
    GenerationRequest,
    ResponseFormat,
    SamplingParams,
)

_FORMATS: dict[FormatKind, str] = {
    "json_object": "JSON object",
    "json_schema": "JSON schema",
    "regex": "regular expression",
    "lark": "Lark grammar",
}
_SHOWN_WHERE_SET = (
    "top_k",
    "min_p",
    "seed",
    "repetition_penalty",
    "repetition_window",
    "presence_penalty",
    "frequency_penalty",
    "n",
    "context",
)
_DEFAULTS = SamplingParams()


class RequestParameter(msgspec.Struct, frozen=True):
    """What a request asked for, in words. value may hold what the client wrote, so clean it before it is shown."""

    name: str
    value: str


class RequestDetails(msgspec.Struct, frozen=True):
    """Seconds and tokens, summed over the rows; decode is that of the longest row, None before the first token.

    queued: seconds in line, until it goes to the model; loading: seconds for which it waited for the model's load.
    guessed_tokens were checked by the model, and accepted_tokens of them were right. key: the name of the client's key,
    empty where it has none. reasons: why the rows ended, each one once. with_queue: of its TTFT, as in Timings.
    """

    key: str = ""
    background: bool = False
    queued: float = 0.0
    loading: float = 0.0
    decode: float | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    guessed_tokens: int = 0
    accepted_tokens: int = 0
    reasons: tuple[FinishReason, ...] = ()
    parameters: tuple[RequestParameter, ...] = ()
    with_queue: bool = False


class Asker(Protocol):
    """Who asks, as a request says it."""

    @property
    def client(self) -> str: ...

    @property
    def account(self) -> str: ...


def key_name(request: Asker) -> str:
    """The name of the client's key. An account is a key or, without one, the address that ends the client's name, or a
    network of IPv6; names of keys have no colon."""
    return "" if ":" in request.account or request.client.endswith(f" {request.account}") else request.account


def parameters(request: object) -> tuple[RequestParameter, ...]:
    """What was asked for: the usual parameters always, the others where they are not at their defaults."""
    match request:
        case GenerationRequest():
            kv_bits = [("kv_bits", str(request.kv_bits))] if request.kv_bits is not None else []
            found = (*_sampling(request.sampling), *kv_bits, *_prompt(request))
            return tuple(RequestParameter(*each) for each in found)
        case EmbeddingRequest():
            return tuple(RequestParameter(*each) for each in _embedding(request))
    return ()


def _sampling(sampling: SamplingParams) -> list[tuple[str, str]]:
    found = [(name, f"{getattr(sampling, name):g}") for name in ("temperature", "top_p")]
    found.insert(0, ("max_tokens", str(sampling.max_tokens) if sampling.max_tokens < LARGEST else "no limit"))
    for name in _SHOWN_WHERE_SET:
        if (value := getattr(sampling, name)) != getattr(_DEFAULTS, name):
            found.append((name, str(value)))
    if sampling.stop:
        found.append(("stop", _counted(len(sampling.stop), "string")))
    if sampling.logit_bias:
        found.append(("logit_bias", _counted(len(sampling.logit_bias), "token")))
    if sampling.logprobs:
        found.append(("logprobs", f"with the {sampling.top_logprobs} likeliest" if sampling.top_logprobs else "on"))
    return [*found, ("response_format", _format(sampling.response_format))]


def _format(wanted: ResponseFormat | None) -> str:
    if wanted is None:
        return "text"
    return _FORMATS[wanted.kind] + (f", {_counted(len(wanted.text), 'character')}" if wanted.text else "")


def _prompt(request: GenerationRequest) -> list[tuple[str, str]]:
    """What the first prompt says of thinking and tools; all prompts of a request say the same."""
    found = [("prompts", str(len(request.prompts)))] if len(request.prompts) > 1 else []
    first = request.prompts[0] if request.prompts else None
    if isinstance(first, ChatPrompt):
        if first.thinking is not None:
            found.append(("thinking", "on" if first.thinking else "off"))
        if first.effort:
            found.append(("effort", first.effort))
        if first.tools:
            found.append(("tools", f"{len(first.tools)}, {first.tool_choice}"))
    return found


def _embedding(request: EmbeddingRequest) -> list[tuple[str, str]]:
    found = [("inputs", str(len(request.inputs)))]
    if request.dimensions is not None:
        found.append(("dimensions", str(request.dimensions)))
    if request.prompt_name is not None:
        found.append(("prompt_name", request.prompt_name))
    return [*found, ("truncate", "on")] if request.truncate else found


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count:,} {what}s"
