"""The short title that a model writes for a new chat: when it may, what it is asked, and what of its answer is taken.

Nobody waits for a title: it is asked for while no model does anything else, and given up when somebody asks something.
Knows no widget; `listener` gets a TitleWritten for every title.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from textual.message_pump import MessagePump
from textual.worker import Worker

from squish.chats.messages import MAX_TITLE
from squish.errors import SquishError
from squish.generation import TITLE, ChatPrompt, Finished, GenerationRequest, Message, SamplingParams, TextDelta
from squish.sessions.backend import Backend
from squish.text import clean
from squish.tui.chat.conversation import Conversation
from squish.tui.messages import TitleWritten

_READ = 400  # characters of the question, and as many of the answer
_TOKENS = 32
_WORDS = 8  # more of them are a sentence, which says less than the question
_WANTED = (
    "Write a title of two to six words for the conversation below, in its language. "
    "Answer with the title alone.\n\nUser: {question}\n\nAssistant: {answer}"
)
_AROUND = " \t#*_`\"'“”„‘’«»-–—:.,;"
_WORD = r"[^\W\d_].*[^\W\d_]|[\u3040-\uffff]"  # one letter is none, unless it is a word in its script
_LABEL = r"(?i)\W*title\W*:"


class Titles:
    """The chats that wait for a title, and the one that is being named.

    busy: whether an answer is being written in any chat.
    """

    def __init__(self, runtime: Backend, listener: MessagePump, busy: Callable[[], bool]) -> None:
        self._runtime, self._listener, self._busy = runtime, listener, busy
        self._waiting: dict[int, Conversation] = {}
        self._worker: Worker[None] | None = None

    def want(self, conversation: Conversation) -> None:
        """An answer of a chat has ended: let the chat be named, if its title is still the question."""
        id, turns = conversation.id, conversation.turns
        if not self._runtime.settings.titles or id is None or not turns or not turns[0].answer.text:
            return
        with suppress(SquishError):  # it was deleted meanwhile, or the disk has failed, which saving has said
            if self._runtime.chats.get(id).titled == "question":
                self._waiting[id] = conversation
                self.look()

    def look(self) -> None:
        """Begin with the next title, where there is one and its model is loaded and idle."""
        if self._busy() or (self._worker is not None and not self._worker.is_finished):
            return
        for id, conversation in self._waiting.items():
            if self._is_idle(conversation.model):
                run = self._run(id, conversation)
                self._worker = self._listener.app.run_worker(run, group="title", exit_on_error=False)
                return

    def stop(self) -> None:
        """Somebody asks something: the title that is being written waits until the model is idle again."""
        if self._worker is not None:
            self._worker.cancel()

    def _is_idle(self, model: str) -> bool:
        statuses = self._runtime.sessions.status()
        busy = any(each.state == "loading" or each.running or each.waiting for each in statuses)
        return not busy and any(each.state == "ready" and each.serves(model) for each in statuses)

    async def _run(self, id: int, conversation: Conversation) -> None:
        asked, answer = request(conversation), conversation.turns[0].answer.text
        text, complete = "", False
        try:
            async with self._runtime.sessions.generate(asked) as generation:
                async for event in generation:
                    if isinstance(event, TextDelta):
                        text += event.text
                    elif isinstance(event, Finished):
                        complete = event.reason == "stop"
        except SquishError:  # the question stays the title; the next answer that ends lets it be tried again
            self._waiting.pop(id, None)
            return
        self._waiting.pop(id, None)
        self._listener.post_message(TitleWritten(conversation, taken(text, complete, answer)))


def request(conversation: Conversation) -> GenerationRequest:
    """What a model is asked for the title of a chat: a short prompt, however long the chat is."""
    first = conversation.turns[0]
    wanted = _WANTED.format(question=first.question[:_READ], answer=first.answer.text[:_READ])
    prompt = ChatPrompt((Message("user", wanted),), thinking=False)
    sampling = SamplingParams(max_tokens=_TOKENS, temperature=0.0)
    return GenerationRequest(conversation.model, (prompt,), sampling, client=TITLE, background=True)


def taken(text: str, complete: bool, answer: str) -> str:
    """The title in what a model wrote, or nothing where that is not one: too long, cut off, without a word, code,
    a row of a table, or the answer over again.

    complete: whether the model came to an end by itself.
    """
    lines = [line for line in clean(text).splitlines() if line.strip()]
    if not lines or (len(lines) == 1 and not complete):
        return ""
    line = " ".join(re.sub(_LABEL, "", lines[0], count=1).split()).strip(_AROUND)
    short = len(line) <= MAX_TITLE and len(line.split()) <= _WORDS
    new = not answer.casefold().startswith(line.casefold())
    words = re.search(_WORD, line) and not line.startswith("|") and not lines[0].lstrip().startswith("```")
    return line if short and new and words else ""
