"""The chats of this run: the one that is shown, those that are answered behind it, and what waits in each of them.

Each keeps its draft, what is to be asked next, and whether an answer has ended that nobody saw. Knows no widget.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Literal

import msgspec

from squish.chats.chats import Chats
from squish.chats.messages import Attachment, Chat
from squish.chats.tags import TagChange
from squish.errors import SquishError, StoreError
from squish.tui.chat.conversation import Conversation, Question, Turn
from squish.tui.chat.project_files import without

LISTED = 500

Sign = Literal["running", "asks", "news", "failed", "pinned", ""]


class ChatRow(msgspec.Struct, frozen=True):
    """running: an answer is being written; asks: it waits until a call is allowed or refused; news: one has ended that
    was not seen; failed: the same of one that ended with an error; pinned: none of these, and it stays on top.

    day: when it was used last. tags: but for the one that all of the list have.
    """

    id: int
    title: str
    sign: Sign = ""
    day: str = ""
    tags: tuple[str, ...] = ()


class Conversations:
    """shown: the chat in view; editing: the turn of it whose question is being rewritten. Methods raise StoreError.

    tag: only chats with it are listed, and a chat that is begun meanwhile gets it; empty: all are.
    """

    def __init__(self, chats: Chats, clock: Callable[[], float]) -> None:
        self._chats, self._clock = chats, clock
        self.shown = Conversation(chats, "", clock)
        self.editing: Turn | None = None
        self._set_aside = ""  # the draft that an edit took the place of
        self.tag = ""
        self.unsent = ""  # the draft of a new chat that was left before its first message
        self._unsent_of: Conversation | None = None
        self._known: dict[int, Conversation] = {}

    # ---- going from one to another

    def begin(self, draft: str) -> None:
        """Show a new chat that asks as the one before it did. draft: what is being written in the chat that is left."""
        left = self.shown
        begun = Conversation(self._chats, left.model, self._clock, settings=without(left.settings), preset=left.preset)
        self._show(begun, draft)

    def open(self, id: int, draft: str, message: int | None = None) -> Turn | None:
        """Show a chat, on the branch of a message if asked for, whose turn is the result. InvalidInput: it is gone."""
        opened = self._known.get(id) or Conversation.open(self._chats, id, self._clock)
        if message is not None and not opened.turn_with(message):
            opened.show_version(message)
        elif id in self._known and not opened.running:
            opened.reload()
        self._known[id] = opened
        self._show(opened, draft)
        return opened.turn_with(message) if message is not None else None

    def neighbor(self, step: int) -> int | None:
        """The chat so many places further on in the list."""
        ids = [chat.id for chat in self._chats.recent(pinned_first=True, tags=self._tags)]
        at = ids.index(self.shown.id) + step if self.shown.id in ids else 0
        return ids[at % len(ids)] if ids else None

    def rows(self) -> list[ChatRow]:
        """The list of chats: those that are pinned, then the others, the one used last first."""
        today = datetime.now().astimezone()
        return [
            ChatRow(
                each.id,
                each.title,
                self._sign(each) or ("pinned" if each.pinned else ""),
                day_of(each.updated, today),
                tuple(tag for tag in each.tags if tag != self.tag),
            )
            for each in self._chats.recent(LISTED, pinned_first=True, tags=self._tags)
        ]

    @property
    def _tags(self) -> tuple[str, ...]:
        return (self.tag,) if self.tag else ()

    def delete(self, id: int) -> Turn | None:
        """Delete a chat with all its messages; the turn that was being answered in it."""
        known = self._known.pop(id, None)
        self._chats.remove(id)
        if id == self.shown.id:
            self.shown.id = None
        return known.running if known else None

    def _show(self, conversation: Conversation, draft: str) -> None:
        try:
            self.keep_draft(draft)
        finally:
            if conversation.id is None:
                conversation.draft, self.unsent = self.unsent, ""
            self.shown, self.editing = conversation, None
            conversation.see()

    def _sign(self, chat: Chat) -> Sign:
        known = self._known.get(chat.id)
        if known and known.running:
            return "asks" if known.running.answer.phase == "asking" else "running"
        return known.unread if known else chat.unread

    def give_title(self, conversation: Conversation, title: str) -> None:
        """Name a chat as its model does, unless the user has named it meanwhile."""
        if conversation.id is not None and self._chats.give_title(conversation.id, title) and title:
            conversation.title = title

    # ---- drafts

    def keep_draft(self, draft: str) -> None:
        """Put what is written away with its chat; that of a chat without a message waits for the next new one."""
        left = self.shown
        left.draft = self.take_set_aside() if self.editing else draft
        self._put_away(left)

    def _put_away(self, conversation: Conversation) -> None:
        if conversation.id is None:
            self.unsent, self._unsent_of = conversation.draft, conversation
            return
        if conversation is self._unsent_of:
            self.unsent, self._unsent_of = "", None
        self._chats.keep_draft(conversation.id, conversation.draft)

    def take_up(self, unsent: str) -> None:
        """The draft that an earlier run of the program left is that of the shown chat."""
        self.shown.draft = unsent
        self._put_away(self.shown)

    def is_unkept(self, draft: str) -> bool:
        """Whether what is written in the shown chat would be lost with the program; an edit is given up with it."""
        return self.editing is None and draft != self.shown.draft

    def edit(self, turn: Turn, draft: str) -> None:
        """Rewrite a question; the draft is set aside for it."""
        if self.editing is None:
            self._set_aside = draft
        self.editing = turn

    def leave_edit(self) -> str:
        """Give the edit up; the draft that was set aside."""
        self.editing = None
        return self.take_set_aside()

    def take_set_aside(self) -> str:
        taken, self._set_aside = self._set_aside, ""
        return taken

    # ---- asking and saving

    def ask(self, conversation: Conversation, text: str, files: tuple[Attachment, ...]) -> Turn:
        """Begin a turn, in place of the one that is edited."""
        instead = self.editing if conversation is self.shown else None
        turn = conversation.ask(text, files, instead)
        self.know(conversation)
        if instead:
            self.editing = None
        return turn

    def know(self, conversation: Conversation) -> None:
        """Remember a chat that has its first message."""
        assert conversation.id is not None
        if conversation.id not in self._known and self._tags:
            self._chats.tag(conversation.id, TagChange(self._tags))
        self._known[conversation.id] = conversation

    def ended(self, turn: Turn, error: SquishError | None) -> Question:
        """An answer grows no more; what was to be asked after it."""
        if error:
            turn.answer.fail(error)
        turn.answer.leave()
        conversation = turn.conversation
        self._note_unseen(turn)
        queued, conversation.queued = conversation.queued, Question()
        return queued

    def _note_unseen(self, turn: Turn) -> None:
        if turn.conversation is not self.shown:
            turn.conversation.unread = "failed" if turn.answer.phase == "failed" else "news"

    def save(self, turn: Turn, now: bool = False) -> None:
        if turn.conversation.id in self._known:  # not if it was deleted while it was answered
            turn.conversation.save(turn, now)

    def save_growing(self) -> None:
        """Save what was written since the last time in every chat, and what could not be saved then."""
        for conversation in self._known.values():
            if (turn := conversation.live) and turn.unsaved:
                self.save(turn, now=True)

    def close(self, draft: str) -> None:
        """The program ends: keep what is written of every answer, and what was to be asked next as a draft.

        Raises StoreError, once it has tried to keep the rest.
        """
        chats = dict.fromkeys((self.shown, *self._known.values()))
        failed: StoreError | None = None
        for keep in (partial(self.keep_draft, draft), *(partial(self._leave, each) for each in chats)):
            try:
                keep()
            except StoreError as error:
                failed = error
        if failed:
            raise failed

    def _leave(self, conversation: Conversation) -> None:
        if turn := conversation.running:
            turn.answer.leave()
            turn.unsaved = True
            self._note_unseen(turn)
        if (turn := conversation.live) and turn.unsaved:
            self.save(turn)
        if text := conversation.queued.text:
            conversation.give_back(text)
            self._put_away(conversation)


def day_of(seconds: float, now: datetime) -> str:
    """When that was: `14:02` today, `Tue` in the last week, `3 May` this year, `2025-05` before it."""
    then = datetime.fromtimestamp(seconds).astimezone()
    days = (now.date() - then.date()).days
    if days <= 0:
        return f"{then:%H:%M}"
    if days < 7:
        return f"{then:%a}"
    return f"{then.day} {then:%b}" if then.year == now.year else f"{then:%Y-%m}"
