"""A message on its way out whose attachments take time: a document, a folder, a page of the web. One at a time.

The user is asked what of a folder is sent, and before anything is fetched. It knows no widget but the one that it
works for, and the window that asks.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from textual.app import App
from textual.content import Content
from textual.widget import Widget
from textual.worker import Worker

from squish import figures
from squish.attachments.limits import MAX_DOCUMENT, MAX_SECONDS
from squish.chats.messages import Attachment
from squish.errors import SquishError
from squish.text import clean
from squish.tui.chat.context_meter import ContextUse, advice
from squish.tui.chat.conversation import Conversation, Question, Turn
from squish.tui.chat.stopwatch import Stopwatch
from squish.tui.key_hints import key

if TYPE_CHECKING:
    from squish.attachments.folders import Folder
    from squish.attachments.gathering import Gatherer
    from squish.attachments.mentions import Mention
    from squish.attachments.web import PageAddress

_NAMES = 56  # cells
_LISTED = 200  # files of a folder
_BYTES_PER_TOKEN = 4  # about, where nobody can count

Measure = Callable[[Conversation, str, tuple[Attachment, ...], Turn | None], Awaitable[ContextUse | None]]
Files = tuple[Attachment, ...]


class Draft(msgspec.Struct, frozen=True):
    """A message that is to be sent in a chat. editing: the turn that it is another version of."""

    conversation: Conversation
    question: Question
    editing: Turn | None
    found: Sequence[Mention]

    @property
    def kept(self) -> Files:
        return self.editing.attachments if self.editing else ()


class Outgoing:
    """sent: gets what is complete; failed: gets what is not sent, and why, empty where the user knows.

    measure: how full the context is with a message and its files.
    """

    def __init__(
        self, listener: Widget, files: Gatherer, measure: Measure,
        sent: Callable[[Draft, Files], Awaitable[None]], failed: Callable[[Draft, str], None],
    ) -> None:  # fmt: skip
        self._listener, self._files, self._measure = listener, files, measure
        self._sent, self._failed = sent, failed
        self._draft: Draft | None = None
        self._watch = Stopwatch(time.monotonic)
        self._worker: Worker[None] | None = None

    @property
    def draft(self) -> Draft | None:
        """The message whose files are being read."""
        return self._draft

    @property
    def names(self) -> str:
        """What is being read; empty where nothing is."""
        return ", ".join(each.name for each in self._draft.found) if self._draft else ""

    @property
    def waited(self) -> float:
        """Seconds that it has been read, without those that the user took for an answer."""
        return self._watch.seconds

    def is_reading_for(self, conversation: Conversation) -> bool:
        return self._draft is not None and self._draft.conversation is conversation

    async def send(self, draft: Draft) -> None:
        """Read the files and hand the message on, at once where that takes no time."""
        if not any(each.is_read_slowly for each in draft.found):
            await self._read(draft)
        elif self._draft is not None:
            self._failed(
                draft, f"Still reading {clean(self.names)}; {key(self._listener.app, 'chat.stop')} cancels that."
            )
        else:
            self._draft = draft
            self._watch.restart()
            self._worker = self._listener.run_worker(self._read(draft), group="attach", exit_on_error=False)

    def stop(self) -> None:
        if self._worker:
            self._worker.cancel()

    async def _read(self, draft: Draft) -> None:
        files, reason = None, ""
        try:
            consent = _Consent(self._listener.app, draft, self._measure, self._watch.asking)
            files = await self._files.gather(draft.found, consent, draft.kept)
            if self._draft is draft:
                use = await self._measure(draft.conversation, draft.question.text, files, draft.editing)
                asks, shown = draft.conversation.settings, partial(key, self._listener.app)
                reason = advice(use, asks, shown) if use and use.too_long else ""
        except SquishError as error:
            reason = f"Not sent. {error.message}"
        except _NotSent:
            files = None
        finally:
            if self._draft is draft:
                self._draft = self._worker = None
            if files is None:  # also where it was cancelled
                self._failed(draft, reason)
        if files is not None and draft.conversation.running:
            reason = "Not sent: another answer has begun in this chat."
        if files is not None and reason:
            self._failed(draft, reason)
        elif files is not None:
            await self._sent(draft, files)


class _NotSent(Exception):
    """The user does not want to send it."""


class _Consent:
    """Asks in a window. A host can be allowed for the rest of a chat, a private address never."""

    def __init__(
        self, app: App[Any], draft: Draft, measure: Measure, asking: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._app, self._draft, self._measure, self._asking = app, draft, measure, asking

    async def folder(self, folder: Folder) -> bool:
        draft = self._draft
        use = await self._measure(draft.conversation, draft.question.text, tuple(folder.files), draft.editing)
        send = f"Send {len(folder.files)} files" if len(folder.files) > 1 else "Send this file"
        choices = [("no", "Send its name only"), ("cancel", "Do not send the message")]
        if not (use and use.too_long):
            choices.insert(0, ("yes", send))
        return await self._choose(f"Send the folder {folder.name}?", _about_folder(folder, use), choices) == "yes"

    async def page(self, address: PageAddress) -> bool:
        allowed = self._draft.conversation.fetches
        if address.host in allowed and not address.private:
            return True
        choices = [("yes", "Fetch it once")]
        if not address.private:
            choices.append(("chat", f"Fetch from {clean(address.host)} in this chat without asking"))
        choices += [("no", "Send the address only"), ("cancel", "Do not send the message")]
        chosen = await self._choose("Fetch this page?", _about_page(address), choices)
        if chosen == "chat":
            allowed.add(address.host)
        return chosen in ("yes", "chat")

    async def _choose(self, title: str, about: Content, choices: list[tuple[str, str]]) -> str:
        from squish.tui.windows.choice import ChoiceScreen

        with self._asking():
            chosen = await self._app.push_screen_wait(ChoiceScreen(clean(title), about, choices))
        if chosen in (None, "cancel"):
            raise _NotSent
        return chosen


def _about_folder(folder: Folder, use: ContextUse | None) -> Content:
    files = f"{len(folder.files)} files" if len(folder.files) > 1 else "1 file"
    tokens = use.draft_label if use else f"about {figures.count(folder.size // _BYTES_PER_TOKEN)}"
    head = f"{files} · {figures.size(folder.size)} · {tokens} tokens"
    rows: list[Content] = [Content.styled(head, "bold")]
    if use and use.limit:
        style = "$text-error" if use.too_long else "$foreground-muted"
        holds = f"The context holds {figures.count(use.limit)}, of which {figures.count(use.used)} are used."
        rows.append(Content.styled(f"{holds} Too long to send." if use.too_long else holds, style))
    if folder.without:
        rows.append(Content.styled(f"Left out: {clean(folder.without)}", "$foreground-muted"))
    listed = [(Content(f"  {clean(each.name)}"), figures.size(len(each.text.encode()))) for each in folder.files]
    width = min(max((name.cell_length for name, _ in listed[:_LISTED]), default=0), _NAMES)
    for name, size in listed[:_LISTED]:
        rows.append(name.truncate(width, ellipsis=True, pad=True) + Content.styled(f"{size:>9}", "$foreground-muted"))
    return Content("\n").join(rows)


def _about_page(address: PageAddress) -> Content:
    rows = [Content.styled(clean(str(address.url)), "bold")]
    if address.private:
        where = f" ({address.numbers[0]})" if address.numbers and address.numbers[0] != address.host.strip("[]") else ""
        rows.append(
            Content.styled(
                f"{clean(address.host)}{where} is a private address: on this machine or in your network. "
                "Its content becomes part of this chat.",
                "$text-warning",
            )
        )
    limits = f"at most {MAX_DOCUMENT >> 20} MiB and {MAX_SECONDS} s"
    rows.append(Content.styled(f"Its text goes along with the message; {limits}, no cookies.", "$foreground-muted"))
    return Content("\n").join(rows)
