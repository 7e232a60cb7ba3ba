"""What clients post to /v1/responses. Structs only.

Ranges stand here for the OpenAPI document; SamplingParams enforces them. An item of `input`, and a tool, has one Struct
whatever its type: which fields it needs is for conversation.py and tools.py to say.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from squish.api.fields.documented import documented
from squish.api.openai.requests import LENIENT, Ignored, JsonObject, KeepAlive, LogitBias, Penalty


class InputPart(msgspec.Struct, gc=False):
    """A part of a message, of thoughts, or of what a tool gave; only text is understood."""

    type: Annotated[str, documented("input_text, output_text, text, refusal, summary_text or reasoning_text.")]
    text: str | None = None
    refusal: str | None = None


class InputItem(msgspec.Struct, gc=False):
    """An item of the conversation. Without a type, it is a message."""

    type: (
        Annotated[str, documented("message, function_call, function_call_output, reasoning; hosted calls are skipped.")]
        | None
    ) = None
    role: Annotated[str, documented("user, assistant, system or developer.")] | None = None
    content: str | list[InputPart] | None = None
    id: Ignored | None = None
    call_id: Annotated[str, documented("Which call a function_call_output answers.")] | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: Annotated[str, documented("A JSON object as text.")] | None = None
    input: Annotated[str, documented("What a custom_tool_call was given.")] | None = None
    output: str | list[InputPart] | None = None
    summary: list[InputPart] | None = None
    encrypted_content: str | None = None


class OfferedFunction(msgspec.Struct, kw_only=True):
    """A function that the model may call, as it is sent back."""

    type: str = "function"
    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool = False


class OfferedTool(msgspec.Struct):
    """A function, or a namespace of functions. Tools of other types are skipped, and the log says so."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: JsonObject | None = None
    strict: Annotated[bool, documented("true: a schema that cannot be held is refused.")] | None = None
    tools: Annotated[list[Any], documented("The functions of a namespace.")] | None = None


class ChosenTool(msgspec.Struct, omit_defaults=True):
    """The function that has to be called, or (allowed_tools) those that may be, and whether one must."""

    type: Annotated[str, documented("", enum=["function", "allowed_tools"])]
    name: str | None = None
    mode: Annotated[str, documented("", enum=["auto", "required"])] | None = None
    tools: list[OfferedTool] | None = None


class TextFormat(msgspec.Struct, omit_defaults=True):
    type: Annotated[str, documented("", enum=["text", "json_object", "json_schema"])]
    name: Annotated[str, documented("Letters, digits, _ and -.", pattern="^[A-Za-z0-9_-]{1,64}$")] | None = None
    schema: JsonObject | None = None
    description: str | None = None
    strict: Annotated[bool, documented(LENIENT)] | None = None


class TextOptions(msgspec.Struct):
    format: TextFormat | None = None


class ReasoningOptions(msgspec.Struct):
    effort: Annotated[str, documented("none, minimal: no thinking; low, medium, high, xhigh, max: think.")] | None = (
        None
    )
    summary: Annotated[str, documented("Set: thoughts come as the summary, else as content.")] | None = None
    generate_summary: Annotated[str, documented("The same as summary.")] | None = None


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """POST /v1/responses."""

    model: Annotated[str, documented("An installed model, like smollm2:135m.", minLength=1)]
    input: Annotated[str | list[InputItem], documented("What the user says, or the conversation, oldest first.")]
    instructions: Annotated[str, documented("The system message of this response alone.")] | None = None
    previous_response_id: Annotated[str, documented("Continue a stored response.")] | None = None
    store: Annotated[bool, documented("Keep the response in memory; default true.")] | None = None
    stream: Annotated[bool, documented("Answer with server-sent events.")] | None = None
    max_output_tokens: (
        Annotated[int, documented("Longest answer in tokens; -1 and by default: what the context holds.", minimum=-1)]
        | None
    ) = None
    temperature: Annotated[float, documented("0 is greedy; default 0.7.", minimum=0, maximum=2)] | None = None
    top_p: Annotated[float, documented("Default 0.9; 1 is off, 0 is greedy.", minimum=0, maximum=1)] | None = None
    tools: Annotated[list[OfferedTool], documented("What the model may call.")] | None = None
    tool_choice: Annotated[str | ChosenTool, documented("none, auto, required, or a function.")] | None = None
    parallel_tool_calls: Annotated[bool, documented("false: at most one call.")] | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    include: (
        Annotated[
            list[str],
            documented("message.output_text.logprobs, reasoning.encrypted_content; others change nothing."),
        ]
        | None
    ) = None
    top_logprobs: Annotated[int, documented("Likeliest tokens per place.", minimum=0, maximum=20)] | None = None
    top_k: Annotated[int, documented("0 and -1 are off.", minimum=-1)] | None = None
    min_p: Annotated[float, documented("0 is off.", minimum=0, maximum=1)] | None = None
    seed: Annotated[int, documented("The same seed gives the same answer.")] | None = None
    stop: Annotated[str | list[str], documented("Up to 64 strings; empty ones are ignored.")] | None = None
    logit_bias: LogitBias | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, documented("1 is off.", exclusiveMinimum=0, maximum=10)] | None = None
    keep_alive: KeepAlive | None = None
    metadata: Annotated[dict[str, str], documented("Told back; changes nothing.")] | None = None
    user: Ignored | None = None
    safety_identifier: Ignored | None = None
    prompt_cache_key: Ignored | None = None
    service_tier: Ignored | None = None
    max_tool_calls: Annotated[int, documented("Accepted; only hosted tools would count.")] | None = None
