"""A conversation in Ollama's shapes as the values that the engine understands. Pure.

Ollama's calls have no ids as a rule: a result belongs to the call that it names, or to the first that has none yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from squish.api.fields import tools
from squish.api.fields.efforts import DEGREES, thinks
from squish.api.ollama.requests import ChatMessage, ChatRequest, CommonRequest, GenerateRequest
from squish.errors import InvalidInput
from squish.generation import ChatPrompt, Effort, Message, Role, Tool, ToolCall

_ROLES: tuple[Role, ...] = get_args(Role)
_TEXT_ONLY = "Only text is understood."


def chat_prompt(request: ChatRequest) -> ChatPrompt:
    """Messages, tools and how much to think. Raises InvalidInput naming the field."""
    messages = _messages(request.messages or [])
    last = messages[-1]
    goes_on = last.role == "assistant" and not last.tool_calls
    if goes_on and not last.content.strip():
        messages, goes_on = messages[:-1], False
        if not messages:
            raise InvalidInput("messages[0].content is empty, and there is no other message.", param="messages")
    if goes_on and request.format not in (None, ""):
        message = "format is for a whole answer, and the last message is the beginning of one."
        raise InvalidInput(message, hint="Leave out one of them.", param="format")
    thinking, effort = _thinking(request)
    return ChatPrompt(tuple(messages), goes_on, thinking, _offered(request), "auto", effort)


def text_prompt(request: GenerateRequest) -> ChatPrompt:
    """One question, to a model that answers by its chat template. Raises InvalidInput naming the field."""
    before = [Message("system", request.system)] if request.system else []
    thinking, effort = _thinking(request)
    return ChatPrompt((*before, Message("user", request.prompt or "")), thinking=thinking, effort=effort)


def _thinking(request: CommonRequest) -> tuple[bool | None, Effort | None]:
    if not isinstance(request.think, str):
        return request.think, None
    return thinks(request.think, "think"), DEGREES.get(request.think)


def _offered(request: ChatRequest) -> tuple[Tool, ...]:
    for i, tool in enumerate(request.tools or ()):
        if tool.type not in (None, "", "function"):
            message = f"tools[{i}].type must be function; {tool.type[:40]!r} is not supported."
            raise InvalidInput(message, param=f"tools[{i}].type")
    return tools.offered({f"tools[{i}].function": tool.function for i, tool in enumerate(request.tools or ())})


def _messages(given: Sequence[ChatMessage]) -> list[Message]:
    waiting: list[ToolCall] = []  # calls without a result so far
    found = []
    for i, message in enumerate(given):
        at = f"messages[{i}]"
        role = next((each for each in _ROLES if each == message.role.lower()), None)
        if role is None:
            raise InvalidInput(
                f"The role {message.role[:40]!r} cannot be used. Roles: {', '.join(_ROLES)}.", param=f"{at}.role"
            )
        if message.images not in (None, []):
            raise InvalidInput(f"{at}.images is not supported by this server.", hint=_TEXT_ONLY, param=f"{at}.images")
        if message.tool_calls and role != "assistant":
            raise InvalidInput(f"{at}.tool_calls belongs to an assistant's message.", param=f"{at}.tool_calls")
        content = message.content or ""
        if role == "tool":
            call = _answered(message, waiting)
            name = message.tool_name or (call.name if call else None)
            found.append(Message(role, content, (), call.id if call else message.tool_call_id, name))
            continue
        calls = _calls(message, at, i)
        if calls:
            waiting = list(calls)
        thought = (message.thinking or "") if role == "assistant" else ""
        found.append(Message(role, content, calls, reasoning=thought))
    return found


def _calls(message: ChatMessage, at: str, turn: int) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(
            call.id or f"call_{turn}_{i}",
            call.function.name,
            tools.arguments(call.function.arguments, f"{at}.tool_calls[{i}].function.arguments"),
        )
        for i, call in enumerate(message.tool_calls or ())
    )


def _answered(message: ChatMessage, waiting: list[ToolCall]) -> ToolCall | None:
    """The call that a tool message is the result of, which then waits no longer."""
    fitting = [
        call
        for call in waiting
        if message.tool_call_id in (None, "", call.id) and message.tool_name in (None, "", call.name)
    ]
    if not fitting:
        return None
    waiting.remove(fitting[0])
    return fitting[0]
