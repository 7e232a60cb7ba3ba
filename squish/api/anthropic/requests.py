"""What clients of the Messages API send. Structs only.

Ranges stand here for the OpenAPI document; SamplingParams enforces them, for every front door alike. What there can be
very many of is left out of Python's garbage collection, which would stop everybody; it cannot be in a cycle.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from squish.api.fields.documented import documented

Taken = Annotated[Any, documented("Accepted; changes nothing.")]
Display = Annotated[str, documented("omitted: blocks of thoughts are empty.", enum=[None, "summarized", "omitted"])]
JsonSchema = Annotated[dict[str, Any], documented("A JSON schema.")]


KEEP = 'Squish\'s own: how long the model stays loaded afterwards: seconds, or "5m"; -1 is forever.'


class ContentBlock(msgspec.Struct, gc=False):
    """A part of a message: text, a thought, a call of a tool, or what a tool gave back.

    text belongs to text; thinking to thinking; id, name and input to tool_use; tool_use_id, content and is_error to
    tool_result.
    """

    type: Annotated[
        str,
        documented("What it is.", enum=["tool_result", "tool_use", "thinking", "redacted_thinking", "text"]),
    ]
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: Annotated[str, documented("The call whose result it is.")] | None = None
    content: Annotated[str | list[ContentBlock], documented("Text, or blocks of it.")] | None = None
    is_error: Annotated[bool, documented("true: the text is shown to the model as an error.")] | None = None
    cache_control: Taken = None


Content = str | list[ContentBlock]


class MessageParam(msgspec.Struct, gc=False):
    role: Annotated[str, documented("Who speaks.", enum=["system", "assistant", "user"])]
    content: Content


class ToolParam(msgspec.Struct):
    """A function that the model may call. Tools that run at Anthropic have other types."""

    name: Annotated[str, documented("Letters, digits, _ and -.", pattern="^[A-Za-z0-9_-]{1,128}$")] | None = None
    input_schema: JsonSchema | None = None
    description: str | None = None
    type: Annotated[str, documented("Only custom.", enum=[None, "custom"])] | None = None
    strict: Annotated[bool, documented("true: a schema that cannot be held is refused.")] | None = None


class ToolChoice(msgspec.Struct):
    type: Annotated[str, documented("Whether to call a tool.", enum=["none", "auto", "any", "tool"])]
    name: Annotated[str, documented("The tool of type tool.")] | None = None
    disable_parallel_tool_use: Annotated[bool, documented("true: at most one call.")] | None = None


class Thinking(msgspec.Struct):
    """Whether to think. Thoughts count in max_tokens; they have no limit of their own."""

    type: Annotated[str, documented("", enum=["disabled", "enabled", "adaptive", "between_tools"])]
    budget_tokens: Annotated[int, documented("Accepted; changes nothing.")] | None = None
    display: (
        Annotated[str, documented("omitted: blocks of thoughts are empty.", enum=[None, "summarized", "omitted"])]
        | None
    ) = None


class OutputFormat(msgspec.Struct):
    """What the answer is held to."""

    type: Annotated[str, documented("Only json_schema.", enum=["json_schema"])]
    schema: JsonSchema


class OutputConfig(msgspec.Struct):
    effort: Annotated[str, documented("", enum=[None, "low", "medium", "high", "xhigh", "max"])] | None = None
    format: OutputFormat | None = None


class CountRequest(msgspec.Struct, kw_only=True):
    """POST /v1/messages/count_tokens. What concerns the answer alone can be there too, and is not counted."""

    model: Annotated[str, documented("An installed model, like smollm2:135m.", minLength=1)]
    messages: Annotated[list[MessageParam], documented("The conversation, oldest first.", minItems=1)]
    system: Annotated[Content, documented("Said before the messages.")] | None = None
    max_tokens: Annotated[int, documented("Longest answer in tokens.", minimum=1)] | None = None
    stop_sequences: Annotated[list[str], documented("Up to 64 texts that end the answer.", maxItems=64)] | None = None
    stream: Annotated[bool, documented("Answer with server-sent events.")] | None = None
    temperature: Annotated[float, documented("0 is greedy; default 0.7.", minimum=0, maximum=2)] | None = None
    top_p: Annotated[float, documented("Default 0.9; 1 is off, 0 is greedy.", minimum=0, maximum=1)] | None = None
    top_k: Annotated[int, documented("0 and -1 are off.", minimum=-1)] | None = None
    tools: Annotated[list[ToolParam], documented("Functions that the model may call.")] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: Annotated[OutputFormat, documented("The same as output_config.format.")] | None = None
    seed: Annotated[int, documented("Squish's own: the same seed gives the same answer.")] | None = None
    keep_alive: Annotated[float | str, documented(KEEP)] | None = None
    metadata: Taken = None
    service_tier: Taken = None
    inference_geo: Taken = None
    speed: Taken = None
    cache_control: Taken = None
    context_management: Taken = None
    diagnostics: Taken = None


class MessagesRequest(CountRequest, kw_only=True):
    """POST /v1/messages."""

    max_tokens: Annotated[int, documented("Longest answer in tokens; it ends with the context too.", minimum=1)]
