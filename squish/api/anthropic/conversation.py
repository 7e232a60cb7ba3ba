"""A conversation in Anthropic's shapes as the values that the engine understands. Pure.

A message's blocks become turns in their order: results of tools are turns of their own. Turns of the same speaker
that follow each other are one, as with Anthropic. System messages stay where they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby

from msgspec.structs import replace

from squish.api.anthropic import tools
from squish.api.anthropic.requests import Content, ContentBlock, CountRequest, MessageParam, OutputFormat
from squish.api.fields import efforts
from squish.errors import InvalidInput
from squish.format import schemas
from squish.generation import ChatPrompt, Message, ResponseFormat, Role

_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_BLOCKS: Mapping[str, tuple[str, ...]] = {
    "user": ("text", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "text": ("text",),
}
_THINKS: Mapping[str, bool | None] = {"enabled": True, "disabled": False, "adaptive": None, "between_tools": None}
_GAP = "\n\n"
_BILLING = re.compile(r"\s*x-anthropic-billing-header:[^\n]*\n*")
"""A line about the client that Claude Code begins its system prompt with. It changes with every request, so behind it
nothing could be known from the request before."""


def chat_prompt(request: CountRequest) -> ChatPrompt:
    """Messages, tools and how much to think. Raises InvalidInput naming the field."""
    if not request.messages:
        raise InvalidInput("messages must not be empty.", param="messages")
    turns = _system(request.system)
    names: dict[str, str] = {}
    for i, message in enumerate(request.messages):
        turns += _turns(message, f"messages[{i}]", names)
    turns = _joined(turns)
    goes_on = turns[-1].role == "assistant" and not turns[-1].tool_calls
    if goes_on and not turns[-1].content.strip():
        turns, goes_on = _without_last(turns), False
    offered = tools.offered(request.tools or [])
    choice = tools.choice(request.tool_choice, offered)
    thinking, config = request.thinking, request.output_config
    thinks = efforts.thinks(thinking.type, "thinking.type", _THINKS) if thinking else None
    effort = config.effort if config else None
    efforts.thinks(effort, "output_config.effort")  # a word that is unknown is refused
    return ChatPrompt(tuple(turns), goes_on, thinks, offered, choice, efforts.DEGREES.get(effort or ""))


def answer_format(request: CountRequest) -> ResponseFormat | None:
    """What the answer is held to, if anything. Raises InvalidInput naming the field."""
    configured = request.output_config.format if request.output_config else None
    if configured is not None and request.output_format is not None:
        message = "output_format and output_config.format are the same; send one of them."
        raise InvalidInput(message, param="output_format")
    if configured is not None:
        return _held_to(configured, "output_config.format")
    return _held_to(request.output_format, "output_format") if request.output_format is not None else None


def _held_to(given: OutputFormat, at: str) -> ResponseFormat:
    if given.type != "json_schema":
        raise InvalidInput(f"{at}.type must be json_schema.", param=f"{at}.type")
    return schemas.answer_format(given.schema, f"{at}.schema", lenient=False)


def _system(system: Content | None) -> list[Message]:
    text = _system_text(system, "system") if system is not None else ""
    return [Message("system", text)] if text.strip() else []


def _turns(message: MessageParam, at: str, names: dict[str, str]) -> list[Message]:
    """names: of the calls so far by their id; what a tool gave back gets the name of its call."""
    role = _ROLES.get(message.role)
    if role is None:
        known = ", ".join(_ROLES)
        raise InvalidInput(f"The role {message.role[:40]!r} cannot be used. Roles: {known}.", param=f"{at}.role")
    at = f"{at}.content"
    if role == "system":
        return [Message(role, _system_text(message.content, at))]
    if isinstance(message.content, str):
        return [Message(role, message.content)]
    for i, block in enumerate(message.content):
        _check(block, f"{at}[{i}]", role)
    return _user(message.content, at, names) if role == "user" else [_assistant(message.content, at, names)]


def _user(blocks: Sequence[ContentBlock], at: str, names: Mapping[str, str]) -> list[Message]:
    if not blocks:
        raise InvalidInput(f"{at} must not be an empty list.", param=at)
    return [
        _result(block, f"{at}[{i}]", names) if block.type == "tool_result" else Message("user", block.text or "")
        for i, block in enumerate(blocks)
    ]


def _result(block: ContentBlock, at: str, names: Mapping[str, str]) -> Message:
    call = block.tool_use_id
    if call is None:
        raise InvalidInput(f"{at}.tool_use_id is missing.", param=f"{at}.tool_use_id")
    if call not in names:
        message = f"{at}.tool_use_id {call[:64]!r} is not the id of an earlier call."
        hint = "It answers the id of a tool_use block of an assistant."
        raise InvalidInput(message, hint=hint, param=f"{at}.tool_use_id")
    text = _GAP.join(_texts(block.content or "", f"{at}.content"))
    return Message("tool", f"Error: {text}" if block.is_error else text, (), call, names[call])


def _assistant(blocks: Sequence[ContentBlock], at: str, names: dict[str, str]) -> Message:
    """One answer was cut into these blocks, so nothing belongs between its texts."""
    calls = tuple(tools.call(block, f"{at}[{i}]") for i, block in enumerate(blocks) if block.type == "tool_use")
    names.update((call.id, call.name) for call in calls)
    text = "".join(block.text or "" for block in blocks if block.type == "text")
    thoughts = _GAP.join(block.thinking or "" for block in blocks if block.type == "thinking")
    return Message("assistant", text, calls, reasoning=thoughts)


def _system_text(content: Content, at: str) -> str:
    return _GAP.join(filter(None, map(_without_billing, _texts(content, at))))


def _without_billing(text: str) -> str:
    found = _BILLING.match(text)
    return text[found.end() :] if found else text


def _texts(content: Content, at: str) -> list[str]:
    """A text, or those of blocks that are all text."""
    if isinstance(content, str):
        return [content]
    for i, block in enumerate(content):
        _check(block, f"{at}[{i}]", "text")
    return [block.text or "" for block in content]


def _check(block: ContentBlock, at: str, place: str) -> None:
    """Raise InvalidInput for a block that does not belong here, or is not whole."""
    allowed = _BLOCKS[place]
    if block.type not in allowed:
        message = f"A block of type {block.type[:40]!r} is not supported here, only {', '.join(allowed)}."
        raise InvalidInput(message, param=f"{at}.type")
    if block.type in ("text", "thinking") and getattr(block, block.type) is None:
        raise InvalidInput(f"{at}.{block.type} is missing.", param=f"{at}.{block.type}")


def _joined(turns: Sequence[Message]) -> list[Message]:
    """Turns of one speaker that follow each other as one; results of tools stay apart."""
    found: list[Message] = []
    for role, group in groupby(turns, key=lambda turn: turn.role):
        run = list(group)
        if role == "tool" or len(run) == 1:
            found += run
            continue
        gap = "" if role == "assistant" else _GAP
        content = gap.join(turn.content for turn in run if turn.content)
        calls = tuple(call for turn in run for call in turn.tool_calls)
        thoughts = _GAP.join(turn.reasoning for turn in run if turn.reasoning)
        found.append(replace(run[0], content=content, tool_calls=calls, reasoning=thoughts))
    return found


def _without_last(turns: Sequence[Message]) -> list[Message]:
    """Continuing an empty answer is beginning one."""
    if len(turns) == 1:
        raise InvalidInput("messages hold nothing to answer.", param="messages")
    if turns[-1].reasoning:
        message = "The last message has thoughts and no text; an answer can only continue its text."
        raise InvalidInput(message, param="messages")
    return list(turns[:-1])
