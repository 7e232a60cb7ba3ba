"""A conversation of the plain terminal that is kept with the others: what is asked and answered is saved as it comes.

It knows the chats and no console; the REPL and the single prompt tell it what happens.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from squish.chats.chats import Chats
from squish.chats.messages import Attachment, Chat, ChatSettings, Figures, State, ToolStep, as_sent
from squish.chats.presets import with_preset
from squish.errors import InvalidInput
from squish.generation import Finished, Message

SAVE_INTERVAL = 0.25


class ChatRecorder:
    """chat: the one that goes on, or None for a new one, which begins with its first question.

    model and settings: what is asked and how. A chat that goes on keeps its own settings.
    """

    def __init__(self, chats: Chats, model: str, settings: ChatSettings, chat: Chat | None = None) -> None:
        self._chats, self._model, self._settings = chats, model, chat.settings if chat else settings
        self._chat = chat.id if chat else None
        self._parent: int | None = None
        self._answer = 0
        self._parts: list[str] = []
        self._thoughts: list[str] = []
        self._steps: tuple[ToolStep, ...] = ()
        self._saved = 0.0

    def turns(self) -> list[Message]:
        """What was said so far; a question without an answer is left out."""
        if self._chat is None:
            return []
        turns: list[Message] = []
        branch = self._chats.branch(self._chat)
        self._parent = branch[-1].id if branch else None
        for question, answer in zip(branch[::2], branch[1::2], strict=False):
            if answer.text:
                turns += [Message("user", question.full_text), *as_sent(answer.steps, answer.text)]
        return turns

    def ask(self, text: str, files: tuple[Attachment, ...] = ()) -> None:
        """A question is on its way."""
        if self._chat is None:
            self._chat = self._chats.create(self._model, self._settings, text)
        else:
            self._chats.configure(self._chat, self._model, self._settings)
        _, self._answer = self._chats.ask(self._chat, self._parent, text, self._model, files)
        self._parts, self._thoughts, self._steps, self._saved = [], [], (), float("-inf")

    def write(self, text: str) -> None:
        """More of the answer."""
        self._parts.append(text)
        self._save()

    def think(self, text: str) -> None:
        """More of what the model thinks before it answers."""
        self._thoughts.append(text)
        self._save()

    def step(self, steps: tuple[ToolStep, ...]) -> None:
        """What was written so far belongs to these steps, before the answer."""
        self._parts, self._steps = [], steps
        self._save()

    def _save(self) -> None:
        if time.monotonic() - self._saved >= SAVE_INTERVAL:
            self._saved = time.monotonic()
            self._chats.grow(self._answer, "".join(self._parts), "".join(self._thoughts), self._steps)

    def end(self, finished: Finished | None, error: str = "") -> None:
        """The answer is complete, stopped (finished says so), or failed with an error."""
        state: State = "done" if finished and finished.reason != "cancelled" else "failed" if error else "stopped"
        figures = Figures(error=error)
        if finished:
            usage, timings = finished.usage, finished.timings
            figures = Figures(
                usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens,
                round(timings.ttft, 4), round(timings.decode, 4), reason=finished.reason,
                with_queue=timings.with_queue, server=timings.server,
            )  # fmt: skip
        text, thoughts = "".join(self._parts), "".join(self._thoughts)
        self._chats.finish(self._answer, text, thoughts, state, figures, self._steps)
        self._parent = self._answer

    def start_anew(self, settings: ChatSettings) -> None:
        """The next question begins another chat."""
        self._chat = self._parent = None
        self._settings = settings


def chosen(home: Path, id: int | None) -> Chat:
    """The chat of that number, or the one that was used last. Raises InvalidInput when there is none."""
    with closing(Chats(home / "chats.db")) as chats:
        if id is not None:
            return chats.get(id)
        recent = chats.recent(1)
    if not recent:
        raise InvalidInput("No chat to continue yet.", hint="--save keeps one.", param="--continue")
    return recent[0]


def settings_of(
    chat: Chat | None, given: Mapping[str, Any], defaults: ChatSettings, preset: ChatSettings | None = None
) -> ChatSettings:
    """How a conversation is asked: as its chat was so far, or by the defaults, but for what is given.

    given: fields of ChatSettings. preset: goes before what was, and behind what is given; one that leaves max_tokens at
    its default changes no limit. Raises InvalidInput for a value out of its range.
    """
    before = chat.settings if chat else defaults
    settings = with_preset(before, preset) if preset else before
    if settings.max_tokens == ChatSettings().max_tokens:
        settings = msgspec.structs.replace(settings, max_tokens=before.max_tokens)
    settings = msgspec.structs.replace(settings, **given)
    settings.sampling()
    return settings
