"""Conversations out of files: what `squish chats export` writes as JSON, and JSON lines with messages of OpenAI's API.

A file is read whole, and nothing of it is kept where a part of it is wrong. It knows no front door.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

import msgspec

from squish.chats.chats import Chats
from squish.chats.messages import Attachment, ChatSettings, Figures, State, ToolStep
from squish.chats.tags import TagChange, tags
from squish.errors import InvalidInput
from squish.text import clean


class _Message(msgspec.Struct):
    role: str
    content: str | None = None
    model: str = ""
    reasoning: str = ""
    state: str = "done"
    attachments: tuple[Attachment, ...] = ()
    steps: tuple[ToolStep, ...] = ()
    usage: dict[str, Any] = {}


class _Chat(msgspec.Struct):
    messages: list[_Message]
    title: str = ""
    model: str = ""
    system: str | None = None
    tags: tuple[str, ...] = ()
    updated: str = ""


@dataclass(frozen=True, slots=True)
class _Turn:
    question: _Message
    answer: _Message


def read(text: str) -> list[tuple[_Chat, list[_Turn]]]:
    """The conversations of a file: one object, an array of them, or one a line.

    Raises InvalidInput naming the conversation and what is wrong with it.
    """
    try:
        found = msgspec.json.decode(text, type=list[_Chat] | _Chat)
        chats = found if isinstance(found, list) else [found]
    except ValueError as whole:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise InvalidInput(f"This is not a conversation: {clean(str(whole))}.") from None
        chats = [_line(line, number) for number, line in enumerate(lines, 1)]
    return [(chat, _turns(chat, number)) for number, chat in enumerate(chats, 1)]


def keep(chats: Chats, found: Sequence[tuple[_Chat, list[_Turn]]]) -> list[int]:
    """Save conversations as new ones, the ids in their order. Raises StoreError."""
    ids: list[int] = []
    for chat, turns in found:
        settings = ChatSettings(system=clean(chat.system or ""))
        id = chats.create(clean(chat.model), settings, clean(chat.title or (turns[0].question.content or "")))
        if chat.title:
            chats.rename(id, clean(chat.title))
        parent: int | None = None
        for turn in turns:
            files = tuple(Attachment(clean(each.name), clean(each.text)) for each in turn.question.attachments)
            model = clean(turn.answer.model or chat.model)
            _, parent = chats.ask(id, parent, clean(turn.question.content or ""), model, files)
            chats.finish(
                parent, clean(turn.answer.content or ""), clean(turn.answer.reasoning), _state(turn.answer),
                _figures(turn.answer), tuple(_clean(each) for each in turn.answer.steps),
            )  # fmt: skip
        chats.tag(id, TagChange(tags(chat.tags)))
        if at := _seconds(chat.updated):
            chats.used_at(id, at)
        ids.append(id)
    return ids


def _line(line: str, number: int) -> _Chat:
    try:
        return msgspec.json.decode(line, type=_Chat)
    except ValueError as error:
        raise InvalidInput(f"Line {number} is not a conversation: {clean(str(error))}.") from None


def _turns(chat: _Chat, number: int) -> list[_Turn]:
    """Questions with their answers. A system message at the beginning becomes the chat's system prompt."""
    messages = list(chat.messages)
    if messages and messages[0].role in ("system", "developer"):
        chat.system = messages.pop(0).content
    turns: list[_Turn] = []
    for at in range(0, len(messages), 2):
        pair = messages[at : at + 2]
        if [each.role for each in pair] not in (["user", "assistant"], ["user"]):
            raise InvalidInput(
                f"Conversation {number}: its messages must be of user and assistant in turn.",
                hint="Calls of tools are read from .json files that Squish wrote, not from JSON lines.",
            )
        turns.append(_Turn(pair[0], pair[1] if len(pair) > 1 else _Message("assistant", state="stopped")))
    if not turns:
        raise InvalidInput(f"Conversation {number} has no messages.")
    tags(chat.tags)
    return turns


def _clean(step: ToolStep) -> ToolStep:
    names = ("id", "name", "arguments", "tool", "result")
    calls = tuple(
        msgspec.structs.replace(each, **{name: clean(getattr(each, name)) for name in names}) for each in step.calls
    )
    return ToolStep(clean(step.text), clean(step.reasoning), calls)


def _state(answer: _Message) -> State:
    known = {each: each for each in get_args(State)}
    return known.get(answer.state, "done") if answer.state != "writing" else "stopped"


def _figures(answer: _Message) -> Figures:
    counts = [answer.usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens")]
    prompt, written = (each if isinstance(each, int) else 0 for each in counts)
    return Figures(prompt, written, reason="stop" if _state(answer) == "done" else "cancelled")


def _seconds(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except (ValueError, OverflowError, OSError):
        return None
