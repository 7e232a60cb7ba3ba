"""Tools in OpenAI's shapes, as clients really send them, and the calls of a conversation. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from squish.api.openai import schemas
from squish.api.openai.requests import CalledFunction, ChatMessage, FunctionTool, NamedTool
from squish.errors import InvalidInput
from squish.generation import Tool, ToolCall

MAX_TOOLS = 128

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHOICES = {"none": "none", "auto": "auto", "required": "required", "any": "required"}


def offered(tools: Sequence[FunctionTool]) -> tuple[Tool, ...]:
    """The tools of a request. Raises InvalidInput naming the field."""
    if len(tools) > MAX_TOOLS:
        raise InvalidInput(f"tools can hold {MAX_TOOLS}, not {len(tools)}.", param="tools")
    found: dict[str, Tool] = {}
    for i, tool in enumerate(tools):
        at, function = f"tools[{i}].function", tool.function
        _only_function(tool.type, f"tools[{i}].type")
        check_name(function.name, f"{at}.name")
        if function.name in found:
            raise InvalidInput(f"{at}.name {function.name!r} is there twice.", param=f"{at}.name")
        parameters = _parameters(function.parameters, f"{at}.parameters")
        lenient = function.strict is False
        found[function.name] = Tool(function.name, function.description or "", parameters, lenient)
    return tuple(found.values())


def choice(asked: str | NamedTool | None, tools: Sequence[Tool]) -> str:
    """In the engine's words: auto, none, required or call:NAME."""
    if asked is None:
        return "auto"
    if isinstance(asked, str):
        if asked not in _CHOICES:
            raise InvalidInput(f"tool_choice must be {', '.join(_CHOICES)} or name a tool.", param="tool_choice")
        if _CHOICES[asked] == "required" and not tools:
            raise InvalidInput("tool_choice requires a tool, but there are no tools.", param="tool_choice")
        return _CHOICES[asked]
    _only_function(asked.type, "tool_choice.type")
    if asked.function.name not in {tool.name for tool in tools}:
        message = f"tool_choice names {asked.function.name[:64]!r}, which is not one of the tools."
        raise InvalidInput(message, param="tool_choice.function.name")
    return f"call:{asked.function.name}"


def calls(message: ChatMessage, at: str) -> tuple[ToolCall, ...]:
    """What an assistant called. Raises InvalidInput naming the field."""
    if not message.tool_calls:
        return ()
    if message.role != "assistant":
        raise InvalidInput(f"{at}.tool_calls belongs to an assistant's message.", param=f"{at}.tool_calls")
    found = []
    for i, call in enumerate(message.tool_calls):
        _only_function(call.type, f"{at}.tool_calls[{i}].type")
        arguments = _arguments(call.function, f"{at}.tool_calls[{i}].function.arguments")
        found.append(ToolCall(call.id, call.function.name, arguments))
    return tuple(found)


def check_name(name: str, at: str) -> None:
    """Raise InvalidInput for what OpenAI takes for no name of a function or a schema."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{at} must be 1 to 64 letters, digits, underscores and dashes.", param=at)


def _arguments(function: CalledFunction, at: str) -> str:
    """A JSON object as text; no text is an object without members."""
    given = function.arguments
    if isinstance(given, dict):
        return schemas.json_text(given, at)
    if given is None or not given.strip():
        return "{}"
    schemas.check_depth(given.encode(), at)
    try:
        msgspec.json.decode(given, type=dict[str, Any])
    except msgspec.MsgspecError:
        hint = 'Send what the model wrote, or "{}" when it was cut off.'
        raise InvalidInput(f"{at} must be a JSON object as text.", hint=hint, param=at) from None
    return given


def _parameters(given: dict[str, Any] | None, at: str) -> str:
    """The schema of a function's arguments, which are an object. Raises InvalidInput for one of anything else."""
    schema = schemas.tidy(given or {}, at)
    kind = schema.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        hint = 'Arguments have names: {"type": "object", "properties": {…}}.'
        raise InvalidInput(f'{at}.type must be "object".', hint=hint, param=f"{at}.type")
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        raise InvalidInput(f"{at}.properties must be an object.", param=f"{at}.properties")
    for name, value in properties.items():
        if not isinstance(value, dict | bool):
            field = f"{at}.properties.{name}"
            raise InvalidInput(f"{field} must be a schema, an object.", param=field)
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise InvalidInput(f"{at}.required must be a list of names.", param=f"{at}.required")
    return schemas.schema_text({"type": "object", **schema, "properties": properties} | {"type": "object"}, at)


def _only_function(kind: str, at: str) -> None:
    if kind != "function":
        raise InvalidInput(f"{at} must be function; {kind[:40]!r} is not supported.", param=at)
