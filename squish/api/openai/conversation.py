"""A conversation in OpenAI's shapes as the values that the engine understands. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from squish.api.openai import thinking, tools
from squish.api.openai.requests import ChatMessage, ChatRequest, ContentPart
from squish.errors import InvalidInput
from squish.generation import ChatPrompt, Message, Role

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_MAY_BE_EMPTY = ("assistant", "tool")


def chat_prompt(request: ChatRequest) -> ChatPrompt:
    """Messages, tools and how much to think. Raises InvalidInput naming the field."""
    if not request.messages:
        raise InvalidInput("messages must not be empty.", param="messages")
    names: dict[str, str] = {}
    messages = tuple(_message(message, f"messages[{i}]", names) for i, message in enumerate(request.messages))
    goes_on = _goes_on(request, messages[-1])
    if goes_on and not messages[-1].content.strip():
        messages, goes_on = _without_last(messages), False
    offered = tools.offered(request.tools or [])
    choice = tools.choice(request.tool_choice, offered)
    return ChatPrompt(messages, goes_on, thinking.asked(request), offered, choice, thinking.effort(request))


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
    calls = tools.calls(message, at)
    names.update((call.id, call.name) for call in calls)
    if role == "tool":
        _check_answers(message.tool_call_id, f"{at}.tool_call_id", names)
    content = _content(message.content, f"{at}.content", optional=role in _MAY_BE_EMPTY)
    if role == "tool":
        return Message(role, content, calls, message.tool_call_id, names.get(message.tool_call_id or ""))
    thought = (message.reasoning_content or message.reasoning or "") if role == "assistant" else ""
    return Message(role, content, calls, reasoning=thought)


def _check_answers(call: str | None, at: str, names: Mapping[str, str]) -> None:
    if call is None:
        raise InvalidInput(f"{at} is missing.", param=at)
    if call not in names:
        message = f"{at} {call[:64]!r} is not the id of an earlier call."
        raise InvalidInput(message, hint="It must be an id from an assistant's tool_calls.", param=at)


def _content(content: str | list[ContentPart] | None, at: str, *, optional: bool) -> str:
    if isinstance(content, str):
        return content
    if not content and optional:
        return ""
    if content is None:
        raise InvalidInput(f"{at} is missing.", param=at)
    if not content:
        raise InvalidInput(f"{at} must not be an empty list.", param=at)
    return "".join(_part(part, f"{at}[{i}]") for i, part in enumerate(content))


def _part(part: ContentPart, at: str) -> str:
    if part.type != "text":
        raise InvalidInput(f"Content of type {part.type[:40]!r} is not supported, only text.", param=f"{at}.type")
    if part.text is None:
        raise InvalidInput(f"{at}.text is missing.", param=f"{at}.text")
    return part.text


def _goes_on(request: ChatRequest, last: Message) -> bool:
    """Whether the last message is the beginning of the answer: an assistant's is, unless it is said to be complete."""
    demanded = _demanded(request)
    if request.add_generation_prompt and demanded:
        message = f"add_generation_prompt and {demanded} exclude each other; send one of them."
        raise InvalidInput(message, param="add_generation_prompt")
    if last.role == "assistant" and not last.tool_calls:
        return request.continue_final_message is not False and request.add_generation_prompt is not True
    if demanded or request.add_generation_prompt is False:
        field = demanded or "add_generation_prompt"
        message = f"{field} asks to continue the last message, which is not an assistant's text."
        raise InvalidInput(message, hint="End messages with the beginning of the answer.", param=field)
    return False


def _demanded(request: ChatRequest) -> str | None:
    """The field that asks to continue the last message, if one does."""
    marked = None
    for i, message in enumerate(request.messages):
        for field in ("prefix", "partial"):
            if not getattr(message, field):
                continue
            marked = f"messages[{i}].{field}"
            if i < len(request.messages) - 1:
                raise InvalidInput(f"{marked} is only allowed in the last message.", param=marked)
    if marked and request.continue_final_message is False:
        raise InvalidInput(f"continue_final_message and {marked} contradict each other.", param=marked)
    return "continue_final_message" if request.continue_final_message else marked


def _without_last(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Continuing an empty answer is beginning one."""
    at = f"messages[{len(messages) - 1}]"
    if len(messages) == 1:
        raise InvalidInput(f"{at}.content is empty, and there is no other message.", param=f"{at}.content")
    if messages[-1].reasoning:
        message = f"{at} has thoughts and no content; an answer can only continue its content."
        raise InvalidInput(message, param=f"{at}.content")
    return tuple(messages[:-1])
