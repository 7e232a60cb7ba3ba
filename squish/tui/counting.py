"""Counts a chat and a draft with the model's own template and tokenizer. Knows no widget."""

from __future__ import annotations

import asyncio
from pathlib import Path

from squish.chats.chats import Attachment
from squish.errors import SquishError
from squish.sessions.manager import SessionManager
from squish.tui.chat import attachments
from squish.tui.chat.context_meter import Context
from squish.tui.chat.conversation import Conversation, Turn

DELAY = 0.3


async def count(
    sessions: SessionManager, conversation: Conversation, draft: str, editing: Turn | None, limit: int
) -> Context | None:
    """How full the context is, once the user has not written for a moment; None when nobody can tell now.

    Nothing is loaded for it. editing: the turn that the draft is another version of. limit: of the model's context.
    """
    await asyncio.sleep(DELAY)
    draft = draft if draft.strip() else ""
    files = [attachments.read(each) for each in attachments.mentions(draft, Path.cwd()) if not each.problem]
    so_far = conversation.with_draft("", instead_of=editing)
    read = tuple(each for each in files if isinstance(each, Attachment))
    with_draft = conversation.with_draft(draft, read, editing)
    if with_draft is None or not conversation.model:
        return Context(0, 0, limit)
    try:
        counts = await sessions.count(conversation.model, (with_draft, so_far) if so_far else (with_draft,))
    except SquishError:  # a template that refuses half a chat: the request itself will say so
        return None
    if counts is None:
        return None
    used = counts[1] if so_far else 0
    return Context(used, max(counts[0] - used, 0) if draft else 0, limit)
