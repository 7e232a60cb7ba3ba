"""Tools in a model's own words: how calls are shown to its template, read from its text, and forced.

mlx-lm's parsers know the formats. What they cannot read is not a call. It knows nothing of streams or batches.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from squish.errors import InvalidInput
from squish.generation import ChatPrompt, Message, ResponseFormat, Tool, ToolCall
from squish.worker.structured.grammar import Held

Parser = Callable[[str, Any], Any]
Hold = Callable[[ResponseFormat], Held]

_COMPACT = {"whitespace_flexible": False}
_ELSEWHERE = frozenset((
    "additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames", "minProperties", "allOf",
    "anyOf", "oneOf", "not", "if", "$ref", "$dynamicRef", "$recursiveRef", "dependentSchemas", "dependentRequired",
    "dependencies",
))  # fmt: skip
"""Where a schema may speak of properties that `properties` does not list."""
_SPACED = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}


def message_for_template(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it; arguments of calls are objects there."""
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _object_or_text(call.arguments or "{}")},
            }
            for call in message.tool_calls
        ]
    if message.reasoning:
        shown["reasoning_content"] = message.reasoning
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        shown["name"] = message.name
    return shown


def for_template(tools: tuple[Tool, ...]) -> list[dict[str, Any]]:
    """Tools as templates and parsers expect them. Raises InvalidInput for a schema that is not an object."""
    shown = []
    for tool in tools:
        function = {"name": tool.name, "description": tool.description, "parameters": _schema(tool)}
        shown.append({"type": "function", "function": function})
    return shown


def offered(prompt: ChatPrompt, tokenizer: Any) -> tuple[Tool, ...]:
    """The tools that the model learns of. Raises InvalidInput when it cannot call any, or not the one that it must."""
    if prompt.tool_choice == "none" or (not prompt.tools and prompt.tool_choice == "auto"):
        return ()
    if not prompt.tools:
        raise InvalidInput("A tool must be called, but there are no tools.", param="tool_choice")
    if not tokenizer.has_tool_calling:
        raise InvalidInput(
            "This model cannot call tools: its chat template and vocabulary have no format for it.",
            hint="Use a model that was trained to call tools, such as Qwen3.",
            param="tools",
        )
    if prompt.tool_choice not in ("auto", "required") and not _chosen(prompt):
        raise InvalidInput(f"tool_choice {prompt.tool_choice!r} names no tool of this request.", param="tool_choice")
    return prompt.tools


def read_calls(parser: Parser, text: str, tools: list[dict[str, Any]]) -> list[ToolCall]:
    """The calls between two markers; none when the text cannot be read as calls."""
    try:
        parsed = parser(text, tools)
        found = parsed if isinstance(parsed, list) else [parsed]
        return [_call(call) for call in found]
    except Exception:  # noqa: BLE001 - a parser raises whatever a model's half-formed text makes it stumble over
        return []


def grammar_with_tools(
    prompt: ChatPrompt, tokenizer: Any, wanted: ResponseFormat | None, hold: Hold
) -> tuple[ResponseFormat | None, tuple[str, ...]]:
    """What an answer must match when tools are offered: the call that is demanded, or else the format or a call. With
    it, the places of schemas that are not held to.

    Only for models that write a call as JSON between their markers. Raises InvalidInput for what cannot be demanded.
    """
    demanded = _chosen(prompt) or (prompt.tools if prompt.tool_choice == "required" else ())
    if not demanded and wanted is None:
        return None, ()
    field = "tool_choice" if demanded or wanted is None else wanted.field
    if not str(getattr(tokenizer.tool_parser, "__module__", "")).endswith(".json_tools"):
        message = "This model's own format of tool calls cannot be part of a grammar."
        hint = 'Use tool_choice "auto" without a response format, or "none".'
        raise InvalidInput(message, hint=hint, param=field)
    callable_ = demanded or prompt.tools
    arguments = [hold(each) for each in arguments_of(callable_)]
    calls = _calls(callable_, arguments, tokenizer)
    notes = tuple(note for each in arguments for note in each.notes)
    if demanded or wanted is None:
        return ResponseFormat("lark", f"start: called\n{calls}", field), notes
    if wanted.kind not in ("json_object", "json_schema"):
        message = "With tools, the only formats of an answer are a JSON object and a JSON schema."
        raise InvalidInput(message, hint='Set tool_choice to "none".', param=field)
    text = wanted.text if wanted.kind == "json_schema" else '{"type": "object"}'
    answer = hold(replace(wanted, kind="json_schema", text=text))
    rules = f"start: called | answer\nanswer: %json {answer.text(_COMPACT)}\n{calls}"
    return ResponseFormat("lark", rules, field), notes + answer.notes


def arguments_of(tools: Sequence[Tool]) -> list[ResponseFormat]:
    """What the arguments of each tool have to match, an object always; one that lists its properties has no others."""
    found = []
    for tool in tools:
        schema = {"type": "object"} | _schema(tool)
        if _is_complete(schema):
            schema["additionalProperties"] = False
        found.append(ResponseFormat("json_schema", json.dumps(schema), tool.field, tool.lenient))
    return found


def _is_complete(schema: dict[str, Any]) -> bool:
    """Whether the properties that a schema lists are all that are meant, though it does not say so: a small model
    would make up more, and a function takes no argument that it does not know."""
    listed = schema.get("properties")
    if not isinstance(listed, dict) or not _ELSEWHERE.isdisjoint(schema):
        return False
    required = schema.get("required", [])
    return isinstance(required, list) and all(name in listed for name in required)


def _calls(tools: Sequence[Tool], arguments: Sequence[Held], tokenizer: Any) -> str:
    """Lark rules for a call of one of these tools. Each schema is a root of its own, for its references."""
    start = _terminal(tokenizer.tool_call_start, tokenizer.tool_call_start_tokens)
    end = _terminal(tokenizer.tool_call_end, tokenizer.tool_call_end_tokens)
    heads = [json.dumps(f'{{"name": {json.dumps(tool.name)}, "arguments": ') for tool in tools]
    calls = " | ".join(f'{head} arguments{at} "}}"' for at, head in enumerate(heads))
    rules = "".join(f"arguments{at}: %json {schema.text(_SPACED)}\n" for at, schema in enumerate(arguments))
    return f'called: {start} "\\n" call "\\n" {end}\ncall: {calls}\n{rules}'


def _terminal(marker: str, tokens: tuple[int, ...]) -> str:
    """A marker in a Lark grammar: the token that it is, or else its text."""
    return f"<[{tokens[0]}]>" if len(tokens) == 1 else json.dumps(marker)


def _chosen(prompt: ChatPrompt) -> tuple[Tool, ...]:
    return tuple(tool for tool in prompt.tools if prompt.tool_choice == f"call:{tool.name}")


def _schema(tool: Tool) -> dict[str, Any]:
    schema = _object_or_text(tool.parameters)
    if not isinstance(schema, dict):
        raise InvalidInput(f"The parameters of the tool {tool.name!r} are not a JSON schema.", param="tools")
    return schema


def _object_or_text(text: str) -> dict[str, Any] | str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _call(parsed: dict[str, Any]) -> ToolCall:
    """A parser's finding as a call. Raises (KeyError, TypeError, ValueError) when it is none."""
    name, arguments = parsed["name"], parsed.get("arguments", {})
    if not isinstance(name, str) or not name:
        raise TypeError("a call without a name")
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(arguments, dict):
        raise TypeError("arguments that are not an object")
    own = parsed.get("id")
    return ToolCall(
        own if isinstance(own, str) else uuid.uuid4().hex[:9],  # templates of Mistral take nine letters and no more
        name,
        json.dumps(arguments, ensure_ascii=False, allow_nan=False),
    )
