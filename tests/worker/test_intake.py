"""Long prompts on their way in: they are refused early, and nobody waits behind them. Counts stand for seconds."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

from squish.errors import ContextLengthExceeded
from squish.generation import Accepted, ChatPrompt, Finished, GenerationEvent, Message, SamplingParams, TextPrompt
from squish.ipc.frames import Cancel, Counted, CountTokens, Events, FromWorker, Generate
from squish.worker.intake import Intake
from squish.worker.prompt.encoder import PromptEncoder
from squish.worker.rows import Prepared
from squish.worker.runner import Inbox
from tests.conftest import PATIENCE
from tests.worker import byte_models

LONG = 1 << 18
CONTEXT = 8192


class Counting:
    """A real tokenizer that counts the characters it is given, and holds on to a long text until it may go on."""

    def __init__(self, hold: int | None = None) -> None:
        self._inner = byte_models.tokenizer()
        self._hold = hold
        self.characters: list[int] = []
        self.begun = threading.Event()
        self.may_go_on = threading.Event()

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        self.characters.append(len(text))
        if self._hold is not None and len(text) >= self._hold:
            self.begun.set()
            assert self.may_go_on.wait(PATIENCE)
        ids: list[int] = self._inner.encode(text, **kwargs)
        return ids

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Entrance:
    """An intake with its threads, and what comes out of it."""

    def __init__(self, tokenizer: Counting, context: int = CONTEXT) -> None:
        self.inbox: Inbox = queue.SimpleQueue()
        self.sent: queue.SimpleQueue[FromWorker] = queue.SimpleQueue()
        self.intake = Intake(self.inbox, self.sent.put)
        encoder = PromptEncoder(tokenizer, context, byte_models.VOCABULARY)
        for long in (False, True):
            threading.Thread(target=self.intake.run, args=(encoder,), kwargs={"long": long}, daemon=True).start()

    def ask(self, request: int, text: str, n: int = 1) -> None:
        self.intake.take(Generate(request, (TextPrompt(text),), SamplingParams(n=n)))

    def events(self) -> list[tuple[int, GenerationEvent]]:
        frame = self.sent.get(timeout=PATIENCE)
        assert isinstance(frame, Events), frame
        return list(frame.items)


@pytest.mark.parametrize("letter", [" ", "a", "é", "\n"])
@pytest.mark.parametrize("chat", [False, True])
def test_eight_megabytes_are_refused_after_little_more_than_the_context(letter: str, chat: bool) -> None:
    tokenizer = Counting()
    encoder = PromptEncoder(tokenizer, CONTEXT, byte_models.VOCABULARY)
    text = letter * 8_000_000
    prompt = ChatPrompt((Message("user", text),)) if chat else TextPrompt(text)
    with pytest.raises(ContextLengthExceeded, match="at least") as caught:
        encoder.encode(prompt)
    assert caught.value.param == ("messages" if chat else "prompt")
    assert sum(tokenizer.characters) <= 4 * CONTEXT


def test_a_prompt_that_just_fits_is_taken_whole() -> None:
    tokenizer = Counting()
    encoder = PromptEncoder(tokenizer, CONTEXT, byte_models.VOCABULARY)
    assert len(encoder.encode(TextPrompt("a" * (CONTEXT - 1)))) == CONTEXT - 1
    with pytest.raises(ContextLengthExceeded):
        encoder.encode(TextPrompt("a" * CONTEXT))


def test_short_prompts_and_counts_overtake_a_long_one() -> None:
    tokenizer = Counting(hold=LONG)
    entrance = Entrance(tokenizer, context=4 * LONG)
    entrance.ask(1, "x" * LONG)
    assert tokenizer.begun.wait(PATIENCE)
    entrance.ask(2, "hi")
    entrance.intake.take(CountTokens(3, (TextPrompt("hi"),)))
    assert entrance.events() == [(2, Accepted((2,)))]
    assert entrance.sent.get(timeout=PATIENCE) == Counted(3, (2,))
    tokenizer.may_go_on.set()
    assert entrance.events() == [(1, Accepted((LONG,)))]
    prepared = [entrance.inbox.get(timeout=PATIENCE) for _ in range(2)]
    assert [item.request for item in prepared if isinstance(item, Prepared)] == [2, 1]


def test_a_cancelled_request_ends_while_it_is_tokenized() -> None:
    tokenizer = Counting(hold=LONG)
    entrance = Entrance(tokenizer, context=4 * LONG)
    entrance.ask(1, "x" * LONG, n=2)
    entrance.ask(2, "y" * LONG)
    entrance.ask(3, "z" * LONG)
    assert tokenizer.begun.wait(PATIENCE)
    for request, rows in ((2, 1), (1, 2)):
        entrance.intake.cancel(Cancel(request))
        ends = [(id, event.reason) for id, event in entrance.events() if isinstance(event, Finished)]
        assert ends == [(request, "cancelled")] * rows
    tokenizer.may_go_on.set()
    assert entrance.events() == [(3, Accepted((LONG,)))]
    assert tokenizer.characters == [LONG, LONG], "what was cancelled before its turn is never tokenized"
    entrance.intake.cancel(Cancel(3))
    first, second = (entrance.inbox.get(timeout=PATIENCE) for _ in range(2))
    assert isinstance(first, Prepared)
    assert second == Cancel(3)


def test_a_cancelled_request_is_not_measured_to_its_end() -> None:
    tokenizer = Counting(hold=1)
    entrance = Entrance(tokenizer, context=LONG)
    entrance.ask(1, " " * 40 * LONG)
    assert tokenizer.begun.wait(PATIENCE)
    entrance.intake.cancel(Cancel(1))
    assert len(entrance.events()) == 1
    tokenizer.may_go_on.set()
    entrance.ask(2, "hi" * LONG)
    assert isinstance(entrance.sent.get(timeout=PATIENCE), FromWorker)
    assert sum(size < LONG for size in tokenizer.characters) <= 2
