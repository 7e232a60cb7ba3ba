"""A chat as it grows: turns, the answer that is being written, and the request that asks for the next one.

Plain objects, changed only by the screen's handlers. Knows no widget and no session manager.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from squish.errors import SquishError
from squish.generation import (
    Accepted,
    ChatPrompt,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Loading,
    Message,
    Prefill,
    Queued,
    SamplingParams,
    TextDelta,
    Timings,
    Usage,
)
from squish.text import StreamCleaner

MAX_TOKENS = 2048

Phase = Literal["waiting", "queued", "loading", "prefill", "writing", "done", "stopped", "failed"]
_LINE_BREAKS = str.maketrans("\u2028\u2029", "\n\n")


class Answer:
    """What is known of one answer.

    `clock` gives seconds; live figures are measured with it, final ones come from the engine.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.phase: Phase = "waiting"
        self.text = ""
        self.position = 0
        self.prompt_tokens = 0
        self.prefilled = 0
        self.pieces = 0
        self.stopping = False
        self.reason: FinishReason | None = None
        self.usage = Usage(0, 0)
        self.timings = Timings(0.0, 0.0)
        self.error: SquishError | None = None
        self._clock = clock
        self._phase_began = clock()
        self._cleaner = StreamCleaner()

    @property
    def running(self) -> bool:
        return self.phase not in ("done", "stopped", "failed")

    @property
    def in_phase(self) -> float:
        """Seconds since the phase began."""
        return self._clock() - self._phase_began

    @property
    def prefill_fraction(self) -> float:
        return self.prefilled / self.prompt_tokens if self.prompt_tokens else 0.0

    @property
    def speed(self) -> float:
        """Tokens per second: the engine's figure at the end, an estimate from the pieces seen while it is written."""
        if not self.running:
            return self.timings.decode_tps(self.usage.completion_tokens)
        elapsed = self.in_phase
        return (self.pieces - 1) / elapsed if self.phase == "writing" and elapsed > 0 else 0.0

    def apply(self, event: GenerationEvent) -> str:
        """Take an event in; the text it adds, safe to show."""
        match event:
            case Queued(position=position):
                self._enter("queued")
                self.position = position
            case Loading():
                self._enter("loading")
            case Accepted(prompt_tokens=counts):
                self._enter("prefill")
                self.prompt_tokens = sum(counts)
            case Prefill(done=done, total=total):
                self._enter("prefill")
                self.prefilled, self.prompt_tokens = done, total
            case TextDelta(text=text):
                self._enter("writing")
                self.pieces += 1
                return self._add(self._cleaner.feed(text))
            case Finished(reason=reason, usage=usage, timings=timings):
                self.reason, self.usage, self.timings = reason, usage, timings
                added = self._add(self._cleaner.flush())
                self._enter("stopped" if reason == "cancelled" else "done")
                return added
        return ""

    def fail(self, error: SquishError) -> None:
        """The answer ended with an error; what was written stays."""
        if self.running:
            self.error = error
            self._enter("failed")

    def leave(self) -> None:
        """Nobody listens to the answer any more; what was written stays."""
        if self.running:
            self._enter("stopped")

    def _enter(self, phase: Phase) -> None:
        if phase != self.phase:
            self.phase = phase
            self._phase_began = self._clock()

    def _add(self, text: str) -> str:
        # Markdown counts only \n as the end of a line, str.splitlines counts these two as well.
        text = text.translate(_LINE_BREAKS)
        self.text += text
        return text


@dataclass(eq=False, slots=True)
class Turn:
    """A question and its answer, with the model that gave it."""

    question: str
    model: str
    answer: Answer


@dataclass(eq=False, slots=True)
class Conversation:
    """One chat. model is asked next; earlier turns may be another model's."""

    model: str
    clock: Callable[[], float]
    system: str = ""
    turns: list[Turn] = field(default_factory=list)

    @property
    def running(self) -> Turn | None:
        """The turn whose answer is not complete."""
        return self.turns[-1] if self.turns and self.turns[-1].answer.running else None

    @property
    def last_answer(self) -> str:
        """The latest answer that has text, or nothing."""
        return next((turn.answer.text for turn in reversed(self.turns) if turn.answer.text), "")

    @property
    def context_used(self) -> int:
        """Tokens of the latest answer and all that came before it, as far as the engine has told; 0 when it has not."""
        return next((t.answer.usage.total_tokens for t in reversed(self.turns) if t.answer.usage.total_tokens), 0)

    def ask(self, question: str) -> Turn:
        """Begin a turn. To be called when none is running."""
        turn = Turn(question, self.model, Answer(self.clock))
        self.turns.append(turn)
        return turn

    def request(self) -> GenerationRequest:
        """What to ask the engine for the last turn.

        A turn without a word of answer is left out: many chat templates refuse two user messages in a row.
        """
        messages = [Message("system", self.system)] if self.system else []
        for turn in self.turns[:-1]:
            if turn.answer.text:
                messages += [Message("user", turn.question), Message("assistant", turn.answer.text)]
        messages.append(Message("user", self.turns[-1].question))
        return GenerationRequest(
            self.turns[-1].model, (ChatPrompt(tuple(messages)),), SamplingParams(max_tokens=MAX_TOKENS)
        )
