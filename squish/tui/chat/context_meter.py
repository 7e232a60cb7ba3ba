"""How full the model's context is, counted with the model's own template and tokenizer, and what happens at its end.

Knows no widget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from msgspec.structs import replace
from textual.content import Content

from squish import figures
from squish.attachments.gathering import Gatherer
from squish.chats.messages import Attachment, ChatSettings
from squish.errors import SquishError
from squish.generation import ChatPrompt, Message
from squish.sessions.backend import Sessions
from squish.system.working_directory import working_directory
from squish.tui.chat.conversation import Conversation, Turn

DELAY = 0.3

_WIDTH = 8
_SCARCE = 256
_CHARACTERS = 16  # of a token, at the most in most texts
_LONGEST = 1 << 18  # tokens, of a context that is not known


class ContextUse(msgspec.Struct, frozen=True):
    """Tokens. used: the chat so far; draft: what the message that is being written adds; limit: 0 when not known.

    at_least: there are more of them, which nobody counts.
    """

    used: int = 0
    draft: int = 0
    limit: int = 0
    at_least: bool = False

    @property
    def left(self) -> int:
        return self.limit - self.used - self.draft

    @property
    def too_long(self) -> bool:
        """Whether the model would refuse the message: at least one token must be left for its answer."""
        return bool(self.limit) and self.left < 1

    def while_written(self, used: int) -> ContextUse:
        """With what the answer that is being written takes up to now; 0 where that is not known."""
        return replace(self, used=used, at_least=False) if used else self

    @property
    def draft_label(self) -> str:
        return f"{figures.count(self.draft)}{'+' if self.at_least else ''}"

    def label(self, width: int) -> Content:
        """`ctx ▰▰▱▱ 6.1k/16k +42`, with a warning in words when the end is near; no wider than asked."""
        if not self.limit or not (self.used or self.draft):
            return Content("")
        fraction = (self.used + self.draft) / self.limit
        more = "+" if self.at_least and not self.draft else ""
        counts = f"{figures.count(self.used)}{more}/{figures.count(self.limit)}"
        counts += f" +{self.draft_label}" if self.draft else ""
        style = "$text-error" if self.too_long else "$text-warning" if self.left < _SCARCE else ""
        forms = (
            f"{self._warning}ctx {figures.bar(fraction, _WIDTH)} {counts}",
            f"{self._warning}ctx {counts}",
            f"ctx {counts}",
        )
        return Content.styled(next((form for form in forms if len(form) <= width), forms[-1]), style)

    @property
    def _warning(self) -> str:
        if self.too_long:
            return "too long to send · "
        return f"{figures.count(self.left)} left for the answer · " if self.left < _SCARCE else ""


def limit(model: int, settings: ChatSettings) -> int:
    """Of a chat: tokens that its model's context holds, or that the chat limits itself to. 0: not known."""
    return min(settings.context, model or settings.context) if settings.context else model


def advice(use: ContextUse, settings: ChatSettings, key: Callable[[str], str]) -> str:
    """What a message that does not fit is answered with. settings: of the chat. key: of an action."""
    more = "at least " if use.at_least else ""
    total = f"{more}{figures.count(use.used + use.draft)}"
    raises = f"raise the chat's context limit ({key('chat.params')})" if settings.context == use.limit else ""
    if use.draft >= use.limit or not use.used:  # no other place in a chat has room for it
        longer = raises or f"choose a model with a longer context ({key('chat.model')})"
        return (
            f"Not sent: it has {more}{figures.count(use.draft)} tokens, "
            f"and the context holds {figures.count(use.limit)}. "
            f"Shorten it, or {longer}."
        )
    return (
        f"Not sent: with it, the chat would have {total} tokens, and its context holds {figures.count(use.limit)}. "
        f"Shorten it, {raises}{', ' if raises else ''}edit an earlier message ({key('chat.mark_up')}, "
        f"{key('transcript.edit')}) into a shorter branch, or begin a new chat ({key('chat.new')})."
    )


def no_room(limit: int, settings: ChatSettings, key: Callable[[str], str]) -> str:
    """Why an answer that filled the context cannot be continued, and what to do. limit: of the context, in tokens."""
    own = settings.context == limit
    does = (
        f"raise the chat's limit ({key('chat.params')})"
        if own
        else f"choose a model with a longer one ({key('chat.model')})"
    )
    return f"The context of {figures.count(limit)} tokens is full. To continue, {does}."


class Subject(msgspec.Struct, frozen=True):
    """What is to be counted. editing: the turn that the draft is another version of; limit: of the model's context."""

    conversation: Conversation
    draft: str
    editing: Turn | None
    limit: int


class ContextMeter:
    """use: how full the context is. look: what there is to count now; changed: called when `use` is another one.

    However often it is asked, one count is under way, and it begins when nothing was asked for a moment.
    """

    def __init__(
        self, sessions: Sessions, files: Gatherer, look: Callable[[], Subject], changed: Callable[[], None]
    ) -> None:
        self._sessions, self._files, self._look, self._changed = sessions, files, look, changed
        self._asked = asyncio.Event()
        self.use = ContextUse()
        self.counts = 0

    def recount(self, limit: int) -> None:
        """Count again soon; until then the last answer's own figures stand."""
        known = self._look().conversation.context_used
        self.use = ContextUse(known or self.use.used, self.use.draft, limit)
        self._asked.set()

    def ask(self) -> None:
        """Count again soon: the draft is another one."""
        self._asked.set()

    def forget(self) -> None:
        """Another chat is shown."""
        self.use = ContextUse()

    async def run(self) -> None:
        """Count whenever it is asked for, until it is cancelled."""
        while True:
            await self._asked.wait()
            while self._asked.is_set():
                self._asked.clear()
                await asyncio.sleep(DELAY)
            subject = self._look()
            self.counts += 1
            files = await self._files.of_draft(subject.draft, working_directory())
            counted = await count(self._sessions, subject, files)
            if counted and not self._asked.is_set() and self._look().conversation is subject.conversation:
                self.use = counted
                self._changed()


async def count(sessions: Sessions, subject: Subject, files: tuple[Attachment, ...]) -> ContextUse | None:
    """How full the context is with a draft and its files; None when nobody can tell now. Nothing is loaded for it."""
    conversation, editing, limit = subject.conversation, subject.editing, subject.limit
    draft = subject.draft if subject.draft.strip() else ""
    so_far = conversation.with_draft("", instead_of=editing)
    with_draft = conversation.with_draft(draft, files, editing)
    if with_draft is None or not conversation.model:
        return ContextUse(0, 0, limit)
    most = (limit or _LONGEST) * _CHARACTERS
    asked = [newest(each, most) for each in (with_draft, so_far) if each]
    try:
        counts = await sessions.count(conversation.model, tuple(asked))
    except SquishError:  # a template that refuses half a chat: the request itself will say so
        return None
    if counts is None:
        return None
    used = counts[1] if so_far else 0
    is_full = len(asked) > 1 and asked[1] is not so_far  # without the draft
    adds = max(counts[0] - used, 0) if draft and not is_full else 0
    return ContextUse(used, adds, limit, at_least=asked[0] is not with_draft)


def newest(prompt: ChatPrompt, most: int) -> ChatPrompt:
    """The prompt, or where it has more characters, its system prompt and the end of it, from a question on.

    With more than the context holds nothing can be sent, and counting millions of tokens takes minutes and gigabytes.
    """
    if sum(map(_length, prompt.messages)) <= most:
        return prompt
    system = tuple(each for each in prompt.messages[:1] if each.role == "system" and _length(each) < most)
    room, kept, start = most - sum(map(_length, system)), list[Message](), 0
    for each in reversed(prompt.messages[len(system) :]):
        kept.append(replace(each, content=each.content[-max(room, 0) :] if room > 0 else ""))
        room -= _length(each)
        if each.role == "user":
            start = len(kept)
            if room <= 0:
                break
    return replace(prompt, messages=(*system, *reversed(kept[:start])))


def _length(message: Message) -> int:
    calls = sum(len(call.arguments) for call in message.tool_calls)
    return len(message.content) + len(message.reasoning) + calls
