"""How chats and messages lie in the rows of the database: the columns that are read, and what they mean."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from squish.chats.messages import Attachment, Chat, ChatSettings, ChatTools, Figures, Saved, ToolStep

T = TypeVar("T")
Instead = TypeVar("Instead")

CHATS = (
    "SELECT id, title, model, settings, draft, head, created, updated, tools, titled, pinned, archived,"
    " preset, unread,"
    " (SELECT group_concat(tag, ' ') FROM (SELECT tag FROM tags WHERE chat = chats.id ORDER BY tag)) FROM chats"
)
MESSAGES = (
    "SELECT id, chat, parent, role, text, reasoning, model, attachments, state, figures, created, steps FROM messages"
)


def chat_of(row: tuple[Any, ...]) -> Chat:
    """Of a row of CHATS."""
    id, title, model, settings, draft, head, created, updated, tools, titled, pinned, archived, *rest = row
    preset, unread, tags = rest
    kept = decoded(settings, ChatSettings, ChatSettings())
    return Chat(
        id, title, model, kept, draft, head, created, updated, decoded(tools, ChatTools, ChatTools()),
        titled, bool(pinned), bool(archived), tuple((tags or "").split()), preset, unread,
    )  # fmt: skip


def message_of(row: tuple[Any, ...]) -> Saved:
    """Of a row of MESSAGES."""
    id, chat, parent, role, text, reasoning, model, attachments, state, figures, created, steps = row
    files = decoded(attachments, tuple[Attachment, ...], ())
    return Saved(
        id, chat, parent, role, text, reasoning, model, files, state,
        decoded(figures, Figures, Figures()), created, decoded(steps, tuple[ToolStep, ...], ()),
    )  # fmt: skip


def decoded(text: object, type: type[T], instead: Instead) -> T | Instead:
    """A JSON column. One that is damaged must not take every other row with it: `instead` stands in its place."""
    try:
        return msgspec.json.decode(text, type=type)  # type: ignore[call-overload, no-any-return]
    except (ValueError, TypeError, RecursionError):
        return instead


def dump(value: Any) -> str:
    """What a JSON column has for a value."""
    return msgspec.json.encode(value).decode()
