"""A conversation in OpenAI's shapes, with its tools, as the values that the engine understands. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from squish.api.openai import schemas
from squish.api.openai.requests import ChatMessage, ChatRequest, ContentPart, FunctionTool, NamedTool
from squish.errors import InvalidInput
from squish.generation import ChatPrompt, Message, Role, Tool, ToolCall

MAX_TOOLS = 128

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHOICES = ("none", "auto", "required")
_EFFORTS = {"none": False, "minimal": False, "low": True, "medium": True, "high": True, "xhigh": True}


def chat_prompt(request: ChatRequest) -> ChatPrompt:
    """Messages, tools and how much to think. Raises InvalidInput naming the field."""
    if not request.messages:
        raise InvalidInput("messages must not be empty.", param="messages")
    names: dict[str, str] = {}
    messages = tuple(_message(message, f"messages[{i}]", names) for i, message in enumerate(request.messages))
    tools = _tools(request.tools or [])
    choice = _choice(request.tool_choice, tools)
    return ChatPrompt(messages, thinking=_thinking(request.reasoning_effort), tools=tools, tool_choice=choice)


def check_name(name: str, at: str) -> None:
    """Raise InvalidInput for what OpenAI takes for no name of a function or a schema."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{at} must be 1 to 64 letters, digits, underscores and dashes.", param=at)


def _message(message: ChatMessage, at: str, names: dict[str, str]) -> Message:
    """names: of the calls so far by their id; a tool's answer gets the name of its call."""
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidInput(
            f"The role {message.role[:40]!r} cannot be used. Roles: {', '.join(_ROLES)}.", param=f"{at}.role"
        )
    for field in ("function_call", "audio"):
        if getattr(message, field) is not None:
            raise InvalidInput(f"{at}.{field} is not supported.", param=f"{at}.{field}")
    calls = _calls(message, role, at)
    names.update((call.id, call.name) for call in calls)
    if role == "tool":
        _check_answers(message.tool_call_id, f"{at}.tool_call_id", names)
    content = _content(message.content, f"{at}.content", optional=bool(calls))
    if role != "tool":
        return Message(role, content, calls)
    return Message(role, content, calls, message.tool_call_id, names.get(message.tool_call_id or ""))


def _check_answers(call: str | None, at: str, names: Mapping[str, str]) -> None:
    if call is None:
        raise InvalidInput(f"{at} is missing.", param=at)
    if call not in names:
        message = f"{at} {call[:64]!r} is the id of no call before it."
        raise InvalidInput(message, hint="It answers an id of an assistant's tool_calls.", param=at)


def _calls(message: ChatMessage, role: Role, at: str) -> tuple[ToolCall, ...]:
    if not message.tool_calls:
        return ()
    if role != "assistant":
        raise InvalidInput(f"{at}.tool_calls belongs to an assistant's message.", param=f"{at}.tool_calls")
    for i, call in enumerate(message.tool_calls):
        _only_function(call.type, f"{at}.tool_calls[{i}].type")
        schemas.check_depth(call.function.arguments.encode(), f"{at}.tool_calls[{i}].function.arguments")
    return tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls)


def _content(content: str | list[ContentPart] | None, at: str, *, optional: bool) -> str:
    if content is None and optional:
        return ""
    if content is None:
        raise InvalidInput(f"{at} is missing.", param=at)
    if isinstance(content, str):
        return content
    if not content and not optional:
        raise InvalidInput(f"{at} must not be an empty list.", param=at)
    return "".join(_part(part, f"{at}[{i}]") for i, part in enumerate(content))


def _part(part: ContentPart, at: str) -> str:
    if part.type != "text":
        raise InvalidInput(f"Content of type {part.type[:40]!r} is not supported, only text.", param=f"{at}.type")
    if part.text is None:
        raise InvalidInput(f"{at}.text is missing.", param=f"{at}.text")
    return part.text


def _tools(tools: Sequence[FunctionTool]) -> tuple[Tool, ...]:
    if len(tools) > MAX_TOOLS:
        raise InvalidInput(f"tools can hold {MAX_TOOLS}, not {len(tools)}.", param="tools")
    found: dict[str, Tool] = {}
    for i, tool in enumerate(tools):
        at, function = f"tools[{i}].function", tool.function
        _only_function(tool.type, f"tools[{i}].type")
        check_name(function.name, f"{at}.name")
        if function.name in found:
            raise InvalidInput(f"{at}.name {function.name!r} is there twice.", param=f"{at}.name")
        parameters = schemas.schema_text(function.parameters or {}, f"{at}.parameters")
        found[function.name] = Tool(function.name, function.description or "", parameters)
    return tuple(found.values())


def _choice(choice: str | NamedTool | None, tools: Sequence[Tool]) -> str:
    """In the engine's words: auto, none, required or call:NAME."""
    if choice is None or choice in ("auto", "none"):
        return "none" if choice == "none" else "auto"
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise InvalidInput(f"tool_choice must be {', '.join(_CHOICES)} or name a tool.", param="tool_choice")
        if not tools:
            raise InvalidInput("tool_choice requires a tool, but there are no tools.", param="tool_choice")
        return choice
    _only_function(choice.type, "tool_choice.type")
    if choice.function.name not in {tool.name for tool in tools}:
        message = f"tool_choice names {choice.function.name[:64]!r}, which is none of the tools."
        raise InvalidInput(message, param="tool_choice.function.name")
    return f"call:{choice.function.name}"


def _only_function(kind: str, at: str) -> None:
    if kind != "function":
        raise InvalidInput(f"{at} must be function; {kind[:40]!r} is not supported.", param=at)


def _thinking(effort: str | None) -> bool | None:
    if effort is None:
        return None
    if effort not in _EFFORTS:
        raise InvalidInput(f"reasoning_effort must be one of {', '.join(_EFFORTS)}.", param="reasoning_effort")
    return _EFFORTS[effort]
