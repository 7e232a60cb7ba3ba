"""Tools in OpenAI's shapes, as clients really send them, and the calls of a conversation. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from squish.api.fields import tools as fields
from squish.api.openai.requests import ChatMessage, FunctionTool, NamedTool
from squish.errors import InvalidInput
from squish.generation import Tool, ToolCall

_CHOICES = {"none": "none", "auto": "auto", "required": "required", "any": "required"}


def offered(tools: Sequence[FunctionTool]) -> tuple[Tool, ...]:
    """The tools of a request. Raises InvalidInput naming the field."""
    for i, tool in enumerate(tools):
        _only_function(tool.type, f"tools[{i}].type")
    return fields.offered({f"tools[{i}].function": tool.function for i, tool in enumerate(tools)})


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
        arguments = fields.arguments(call.function.arguments, f"{at}.tool_calls[{i}].function.arguments")
        found.append(ToolCall(call.id, call.function.name, arguments))
    return tuple(found)


def _only_function(kind: str, at: str) -> None:
    if kind != "function":
        raise InvalidInput(f"{at} must be function; {kind[:40]!r} is not supported.", param=at)
