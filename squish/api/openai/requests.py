"""What clients send, in OpenAI's shapes. Structs only.

Ranges stand here for the OpenAPI document; what enforces them is SamplingParams, for every front door alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta


def documented(description: str, **schema: Any) -> Meta:
    """What the OpenAPI document says of a field, beyond its type."""
    return Meta(description=description, extra_json_schema=schema)


Refused = Annotated[Any, documented("Known and not supported: anything but its neutral value is refused.")]


class ContentPart(msgspec.Struct):
    """A part of a message; only text is understood."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct):
    role: Annotated[str, documented("", enum=["system", "developer", "user", "assistant"])]
    content: str | list[ContentPart] | None = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class CommonRequest(msgspec.Struct, kw_only=True):
    """The fields that both endpoints share. The last ones are there to be refused unless neutral."""

    model: Annotated[str, documented("An installed model, like smollm2:135m.", minLength=1)]
    max_tokens: Annotated[int, documented("Longest answer in tokens.", minimum=1)] | None = None
    temperature: Annotated[float, documented("0 is greedy; default 0.7.", minimum=0, maximum=2)] | None = None
    top_p: Annotated[float, documented("Default 0.9; 1 is off.", exclusiveMinimum=0, maximum=1)] | None = None
    top_k: Annotated[int, documented("0 is off.", minimum=0)] | None = None
    min_p: Annotated[float, documented("0 is off.", minimum=0, maximum=1)] | None = None
    seed: Annotated[int, documented("The same seed gives the same answer.")] | None = None
    stop: Annotated[str | list[str], documented("Up to four non-empty strings.")] | None = None
    n: Annotated[int, documented("Answers per prompt.", minimum=1, maximum=128)] | None = None
    stream: Annotated[bool, documented("Answer with server-sent events.")] | None = None
    stream_options: StreamOptions | None = None
    logit_bias: Refused = None
    frequency_penalty: Refused = None
    presence_penalty: Refused = None
    logprobs: Refused = None

    default_max_tokens: ClassVar[int]
    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "logit_bias": ({},),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logprobs": (False,),
    }

    @property
    def rows_per_prompt(self) -> int:
        return 1 if self.n is None else self.n

    @property
    def wants_usage_chunk(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(CommonRequest, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], documented("The conversation, oldest first.", minItems=1)]
    max_completion_tokens: Annotated[int, documented("The same as max_tokens.", minimum=1)] | None = None
    top_logprobs: Refused = None
    tools: Refused = None
    tool_choice: Refused = None
    functions: Refused = None
    function_call: Refused = None
    response_format: Refused = None
    modalities: Refused = None
    audio: Refused = None
    prediction: Refused = None
    reasoning_effort: Refused = None
    verbosity: Refused = None
    web_search_options: Refused = None

    default_max_tokens: ClassVar[int] = 512
    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        **CommonRequest.neutral,
        "top_logprobs": (0,),
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": ([], ["text"]),
        "audio": (),
        "prediction": (),
        "reasoning_effort": (),
        "verbosity": ("medium",),
        "web_search_options": (),
    }


class CompletionRequest(CommonRequest, kw_only=True):
    """POST /v1/completions. Either prompt or batch is required."""

    prompt: (
        Annotated[
            str | list[str | int | list[int]],
            documented("A string, a list of strings, token ids, or a list of lists of token ids; nothing empty."),
        ]
        | None
    ) = None
    batch: Annotated[list[str], documented("Prompts; mutually exclusive with prompt.", minItems=1)] | None = None
    best_of: Refused = None
    echo: Refused = None
    suffix: Refused = None

    default_max_tokens: ClassVar[int] = 256
    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        **CommonRequest.neutral,
        "best_of": (0, 1),
        "echo": (False,),
        "suffix": ("",),
    }
