"""What clients send, in OpenAI's shapes. Structs only.

Ranges stand here for the OpenAPI document; what enforces them is SamplingParams, for every front door alike. What there
can be very many of is left out of Python's garbage collection, which would stop everybody; it cannot be in a cycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec

from squish.api.fields.documented import documented

NotEmpty = Annotated[str, documented("", minLength=1)]
Refused = Annotated[Any, documented("Not supported: only a value that changes nothing is accepted.")]
JsonObject = Annotated[dict[str, Any], documented("A JSON schema.")]
Penalty = Annotated[float, documented("0 is off.", minimum=-2, maximum=2)]
Ignored = Annotated[str, documented("Accepted; changes nothing.")]
LENIENT = "false: what cannot be enforced is left out of the schema, and the log names it; otherwise it is refused."
LONGEST = "Longest answer in tokens; -1 is as many as the context holds."
Effort = Annotated[
    str, documented("none, off, minimal: no thinking; low, medium, high, xhigh, max: think; default: the model's own.")
]
KeepAlive = Annotated[
    float | str,
    documented('How long the model stays loaded afterwards: seconds, or "5m"; -1 is forever, 0 unloads it.'),
]
LogitBias = Annotated[dict[int, float], documented("From token ids to numbers between -100 and 100.")]


class ContentPart(msgspec.Struct, gc=False):
    """A part of a message; only text is understood."""

    type: Annotated[str, documented("Only text.", enum=["text"])]
    text: str | None = None


class FunctionCallParam(msgspec.Struct, gc=False):
    """arguments: a JSON object as text, as the model wrote it; an object and nothing are understood too."""

    name: str
    arguments: str | dict[str, Any] | None = None


class ToolCallParam(msgspec.Struct, gc=False):
    """A call in an assistant's message."""

    id: str
    function: FunctionCallParam
    type: Annotated[str, documented("Only function.", enum=["function"])] = "function"


class ChatMessage(msgspec.Struct, gc=False):
    role: Annotated[str, documented("Who speaks.", enum=["tool", "system", "developer", "assistant", "user"])]
    content: str | list[ContentPart] | None = None
    tool_calls: list[ToolCallParam] | None = None
    tool_call_id: Annotated[str, documented("The call that a tool message answers.")] | None = None
    name: Ignored | None = None
    reasoning_content: Annotated[str, documented("What an assistant thought; for templates that show it.")] | None = (
        None
    )
    reasoning: Annotated[str, documented("The same as reasoning_content.")] | None = None
    prefix: Annotated[bool, documented("true: the last message is the beginning of the answer.")] | None = None
    partial: Annotated[bool, documented("The same as prefix.")] | None = None
    function_call: Refused = None
    audio: Refused = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_timings: (
        Annotated[bool, documented("How far the prompt is, and beside the usage, how long the model took.")] | None
    ) = None


class Function(msgspec.Struct):
    name: Annotated[str, documented("Letters, digits, _ and -.", pattern="^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: JsonObject | None = None
    strict: Annotated[bool, documented(LENIENT)] | None = None


class FunctionTool(msgspec.Struct):
    function: Function
    type: Annotated[str, documented("Only function.", enum=["function"])] = "function"


class NamedFunction(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct):
    """The tool that has to be called."""

    type: Annotated[str, documented("Only function.", enum=["function"])]
    function: NamedFunction


class NamedSchema(msgspec.Struct):
    """A schema that the answer matches."""

    name: Annotated[str, documented("Letters, digits, _ and -.", pattern="^[A-Za-z0-9_-]{1,64}$")] | None = None
    schema: JsonObject | None = None
    description: str | None = None
    strict: Annotated[bool, documented(LENIENT)] | None = None


class Format(msgspec.Struct):
    """text, json_object, json_schema, and Squish's own regex and lark. What belongs to another type is refused."""

    type: Annotated[str, documented("", enum=["text", "json_object", "json_schema", "regex", "lark"])]
    json_schema: NamedSchema | None = None
    schema: Annotated[dict[str, Any], documented("The schema, in place of json_schema.schema.")] | None = None
    strict: Annotated[bool, documented(LENIENT)] | None = None
    regex: Annotated[str, documented("The regular expression of type regex.")] | None = None
    lark: Annotated[str, documented("The grammar of type lark.")] | None = None


class ThinkingSwitch(msgspec.Struct):
    """Whether to think, as other APIs have it."""

    type: Annotated[str, documented("", enum=["enabled", "disabled", "auto", "adaptive"])]


class ReasoningSwitch(msgspec.Struct):
    """Whether to think, as other APIs have it."""

    enabled: bool | None = None
    effort: Effort | None = None


class TemplateSwitches(msgspec.Struct):
    """What can be switched in a chat template: thinking. Everything else is refused."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


class CommonRequest(msgspec.Struct, kw_only=True):
    """The fields that both endpoints share."""

    model: Annotated[str, documented("An installed model, like smollm2:135m.", minLength=1)]
    max_tokens: Annotated[int, documented(LONGEST, minimum=-1)] | None = None
    temperature: Annotated[float, documented("0 is greedy; default 0.7.", minimum=0, maximum=2)] | None = None
    top_p: Annotated[float, documented("Default 0.9; 1 is off, 0 is greedy.", minimum=0, maximum=1)] | None = None
    top_k: Annotated[int, documented("0 and -1 are off.", minimum=-1)] | None = None
    min_p: Annotated[float, documented("0 is off.", minimum=0, maximum=1)] | None = None
    seed: Annotated[int, documented("The same seed gives the same answer; -1 picks one at random.")] | None = None
    stop: Annotated[str | list[str], documented("Up to 64 strings; empty ones are ignored.")] | None = None
    n: Annotated[int, documented("Answers per prompt.", minimum=1, maximum=128)] | None = None
    stream: Annotated[bool, documented("Answer with server-sent events.")] | None = None
    stream_options: StreamOptions | None = None
    logit_bias: LogitBias | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, documented("1 is off.", exclusiveMinimum=0, maximum=10)] | None = None
    response_format: Format | None = None
    num_ctx: (
        Annotated[int, documented("Tokens of prompt and answer together; absent: the model's.", minimum=2)] | None
    ) = None
    keep_alive: KeepAlive | None = None
    user: Ignored | None = None
    safety_identifier: Ignored | None = None
    prompt_cache_key: Ignored | None = None
    service_tier: Ignored | None = None
    metadata: Annotated[dict[str, str], documented("Accepted; changes nothing.")] | None = None
    store: Annotated[bool, documented("Accepted; nothing is stored.")] | None = None

    default_max_tokens: ClassVar[int]
    neutral: ClassVar[Mapping[str, tuple[object, ...]]]
    """Of the fields that are refused: what changes nothing and is taken."""

    @property
    def rows_per_prompt(self) -> int:
        return 1 if self.n is None else self.n

    @property
    def wants_usage_chunk(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def wants_timings(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_timings)


class ChatRequest(CommonRequest, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], documented("The conversation, oldest first.", minItems=1)]
    max_completion_tokens: Annotated[int, documented("The same as max_tokens.", minimum=-1)] | None = None
    logprobs: Annotated[bool, documented("Send the log-probability of every token.")] | None = None
    top_logprobs: Annotated[int, documented("Likeliest tokens per place.", minimum=0, maximum=20)] | None = None
    tools: Annotated[list[FunctionTool], documented("Functions that the model may call.")] | None = None
    tool_choice: Annotated[str | NamedTool, documented("none, auto, required, or a tool by name.")] | None = None
    parallel_tool_calls: Annotated[bool, documented("false: at most one call.")] | None = None
    reasoning_effort: Effort | None = None
    think: Annotated[bool | str, documented("Whether to think, or a reasoning_effort.")] | None = None
    enable_thinking: Annotated[bool, documented("Whether to think.")] | None = None
    thinking: bool | str | ThinkingSwitch | None = None
    reasoning: bool | str | ReasoningSwitch | None = None
    chat_template_kwargs: TemplateSwitches | None = None
    continue_final_message: (
        Annotated[bool, documented("Continue the last message, which is an assistant's.")] | None
    ) = None
    add_generation_prompt: Annotated[bool, documented("true: a last message of an assistant is complete.")] | None = (
        None
    )
    functions: Refused = None
    function_call: Refused = None
    modalities: Refused = None
    audio: Refused = None
    prediction: Refused = None
    verbosity: Refused = None
    web_search_options: Refused = None

    default_max_tokens: ClassVar[int] = 512
    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "functions": (),
        "function_call": (),
        "modalities": ([], ["text"]),
        "audio": (),
        "prediction": (),
        "verbosity": ("medium",),
        "web_search_options": (),
    }


class CompletionRequest(CommonRequest, kw_only=True):
    """POST /v1/completions. Either prompt or batch is required."""

    prompt: (
        Annotated[
            NotEmpty | list[NotEmpty | int | list[int]],
            documented("A string, a list of strings, token ids, or a list of lists of token ids; nothing empty."),
        ]
        | None
    ) = None
    batch: Annotated[list[NotEmpty], documented("Prompts; mutually exclusive with prompt.", minItems=1)] | None = None
    logprobs: Annotated[int, documented("Likeliest tokens per place.", minimum=0, maximum=5)] | None = None
    best_of: Refused = None
    echo: Refused = None
    suffix: Refused = None

    default_max_tokens: ClassVar[int] = 256
    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "best_of": (0, 1),
        "echo": (False,),
        "suffix": ("",),
    }
