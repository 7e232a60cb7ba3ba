"""One answer as it grows: its phase, its text and thoughts, its figures. Changed only by events; knows no widget."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Literal, get_args

from msgspec.structs import replace

from squish.chats.messages import CalledTool, Figures, Saved, State, ToolStep
from squish.errors import EngineError, SquishError
from squish.generation import (
    Accepted,
    Finished,
    FinishReason,
    Loading,
    Prefill,
    Preparing,
    Queued,
    ReasoningDelta,
    TextDelta,
    Timings,
    ToolCallDelta,
    Usage,
)
from squish.mcp.events import AnswerPart, AnswerStopped, Doing, Reaching, Steps, ToolProblem
from squish.sessions.model_status import ModelStatus
from squish.text import StreamCleaner, clean
from squish.tui.chat.stopwatch import Stopwatch

Phase = Literal[
    "reaching", "waiting", "queued", "loading", "preparing", "prefill", "thinking", "writing", "asking", "calling",
    "done", "stopped", "failed",
]  # fmt: skip
_ENDS: dict[str, State] = {"done": "done", "failed": "failed"}
_SPEED_FROM = 0.1  # seconds: pieces that arrive together say nothing about it
# Where a process was killed there is no reason on record, only text without an end.
_REASONS: tuple[FinishReason, ...] = get_args(FinishReason)


class AnswerState:
    """What is known of one answer.

    `clock` gives seconds; live figures are measured with it, final ones come from the engine.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.phase: Phase = "waiting"
        self.text = ""
        self.steps: tuple[ToolStep, ...] = ()  # what came before the text and ended in calls
        self.doing: CalledTool | None = None  # the call that is asked about, or runs
        self.progress = ""  # of that, or the servers that are being reached
        self.problems: list[str] = []  # with tools and parameters, in this process
        self.reasoning = ""
        self.thought = 0.0
        self.position = 0
        self.prompt_tokens = 0
        self.prefilled = self.to_prefill = 0  # of the prompt, what is not cached
        self.pieces = 0  # of the phase that is on
        self.received = 0
        self.stopping = False
        self.compiling = False  # while it is loading
        self.grammar = False  # while it is prepared: a grammar is compiled
        self.loads_there = False  # it waits for a server that loads the model, as that says beside the answer
        self._stop_began = 0.0
        self.reason: FinishReason | None = None
        self.usage = Usage(0, 0)
        self.timings = Timings(0.0, 0.0)
        self.error: SquishError | None = None
        self._before = Figures()  # what was spent before the answer was continued
        self._clock = clock
        self._phase_watch = Stopwatch(clock)
        self._cleaner = StreamCleaner()
        self._thought_cleaner = StreamCleaner()

    @classmethod
    def restored(cls, saved: Saved, clock: Callable[[], float]) -> AnswerState:
        """An answer as it was saved, by any process. One that another process still writes counts as stopped here."""
        answer, figures = cls(clock), saved.figures
        answer.text, answer.reasoning, answer.thought = clean(saved.text), clean(saved.reasoning), figures.thought
        answer.steps = tuple(map(_over, saved.steps))
        answer.phase = "stopped" if saved.state == "writing" else saved.state
        answer.reason = next((each for each in _REASONS if each == figures.reason), None)
        answer.usage = Usage(
            figures.prompt_tokens, figures.completion_tokens, reasoning_tokens=figures.reasoning_tokens
        )
        answer.timings = Timings(figures.ttft, figures.decode, with_queue=figures.with_queue, server=figures.server)
        answer.error = EngineError(figures.error) if figures.error else None
        return answer

    @property
    def running(self) -> bool:
        return self.phase not in ("done", "stopped", "failed")

    @property
    def state(self) -> State:
        """How it is saved."""
        return "writing" if self.running else _ENDS.get(self.phase, "stopped")

    @property
    def figures(self) -> Figures:
        return Figures(
            self.usage.prompt_tokens,
            self.usage.completion_tokens,
            self.usage.reasoning_tokens,
            round(self.timings.ttft, 4),
            round(self.timings.decode, 4),
            round(self.thought, 2),
            self.reason or "",
            self.error.message if self.error else "",
            self.timings.with_queue,
            self.timings.server,
        )

    @property
    def in_phase(self) -> float:
        """Seconds since the phase began, without those that the user took for an answer."""
        return self._phase_watch.seconds

    @property
    def is_asked_about(self) -> bool:
        """Whether it waits for the user in a window."""
        return self._phase_watch.is_asking

    def asking(self) -> AbstractContextManager[None]:
        """While the user is asked something, no time passes."""
        return self._phase_watch.asking()

    def stop(self) -> None:
        """It was asked to end."""
        self.stopping, self._stop_began = True, self._clock()

    @property
    def since_stop(self) -> float:
        """Seconds since it was asked to end."""
        return self._clock() - self._stop_began

    @property
    def is_loading(self) -> bool:
        """Whether its model is being loaded: here, or by the server that it waits for."""
        return self.phase == "loading" or (self.phase == "waiting" and self.loads_there)

    @property
    def thinking_time(self) -> float:
        """Seconds of thinking so far."""
        return self.thought + (self.in_phase if self.phase == "thinking" else 0.0)

    @property
    def prefill_fraction(self) -> float:
        return self.prefilled / self.to_prefill if self.to_prefill else 0.0

    @property
    def context_used(self) -> int:
        """Tokens of the prompt and the answer so far; 0 until the engine has counted the prompt."""
        return self.prompt_tokens + self.received if self.prompt_tokens else 0

    @property
    def speed(self) -> float:
        """Tokens per second: the engine's figure at the end, an estimate from the pieces seen while it is written."""
        if not self.running:
            return self.timings.decode_tps(self.usage.completion_tokens)
        elapsed = self.in_phase
        known = self.phase in ("writing", "thinking") and elapsed >= _SPEED_FROM
        return (self.pieces - 1) / elapsed if known else 0.0

    def hear(self, model: str, statuses: Iterable[ModelStatus]) -> None:
        """Take in how its model is: a server elsewhere says that it loads it beside the answer, and not in it."""
        if self.phase == "waiting":
            loading = [each for each in statuses if each.serves(model) and each.state == "loading"]
            self.loads_there, self.compiling = bool(loading), any(each.compiling for each in loading)

    def apply(self, event: AnswerPart) -> str:
        """Take an event in; the text it adds, safe to show."""
        match event:
            case Queued(position=position):
                self._enter("queued")
                self.position = position
            case Loading(compiling=compiling):
                self._enter("loading")
                self.compiling = compiling
            case Preparing(grammar=grammar):
                self._enter("preparing")
                self.grammar = grammar
            case Accepted(prompt_tokens=counts):
                self._enter("prefill")
                self.prompt_tokens = self.to_prefill = sum(counts)
                self.prefilled = self.received = 0
            case Prefill(done=done, total=total):
                self._enter("prefill")
                self.prefilled, self.to_prefill = done, total
            case ReasoningDelta(text=text):
                self._enter("thinking")
                self.pieces += 1
                self.received += 1
                self.reasoning += self._thought_cleaner.feed(text)
            case TextDelta(text=text):
                self._enter("writing")
                self.pieces += 1
                self.received += 1
                return self._add(self._cleaner.feed(text))
            case Finished(reason="tool_calls"):
                self._account(event)
            case Finished():
                return self._finish(event)
            case _:
                self._apply_tools(event)
        return ""

    def _apply_tools(self, event: AnswerPart) -> None:
        match event:
            case ToolCallDelta():
                self._enter("writing")
                self.pieces += 1
                self.received += 1
            case Reaching(servers=servers):
                self._enter("reaching")
                self.progress = ", ".join(servers)
            case ToolProblem(error=error):
                self.problems.append(error.message)
            case Steps(steps=steps):
                if len(steps) > len(self.steps):
                    self.text, self._cleaner = "", StreamCleaner()
                    self.reasoning += "\n\n" if self.reasoning else ""
                self.steps, self.doing = steps, None
                self._enter("waiting")
            case Doing(call=call, progress=progress):
                self.doing, self.progress = call, progress
                self._enter("asking" if call.outcome == "waiting" else "calling")
            case AnswerStopped():
                self.reason, self.doing = "cancelled", None
                self._enter("stopped")

    def go_on(self) -> None:
        """The answer is asked for again from where it stands; its text and figures stay."""
        self._before, self.reason, self.error = self.figures, None, None
        self.stopping, self.pieces = False, 0
        self._cleaner, self._thought_cleaner = StreamCleaner(), StreamCleaner()
        self._enter("waiting")

    def fail(self, error: SquishError) -> None:
        """The answer ended with an error; what was written stays."""
        if self.running:
            self.error = error
            self._enter("failed")

    def leave(self) -> None:
        """Nobody listens to the answer any more; what was written stays."""
        if self.running:
            self._enter("stopped")

    def _account(self, event: Finished) -> None:
        """Add up what a generation took. The prompt is that of the latest one where tools were called between them."""
        before, usage = self._before, event.usage
        goes_on = before.completion_tokens and before.prompt_tokens and not self.steps
        self.usage = Usage(
            before.prompt_tokens if goes_on else usage.prompt_tokens,
            usage.completion_tokens + before.completion_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens + before.reasoning_tokens,
        )
        self.timings = replace(
            event.timings, ttft=before.ttft or event.timings.ttft, decode=event.timings.decode + before.decode
        )
        self._before = self.figures

    def _finish(self, event: Finished) -> str:
        self._account(event)
        self.reason = event.reason
        added = self._add(self._cleaner.flush())
        self._enter("stopped" if event.reason == "cancelled" else "done")
        return added

    def _enter(self, phase: Phase) -> None:
        if phase != self.phase:
            if self.phase == "thinking":
                self.thought += self.in_phase
                self.reasoning += self._thought_cleaner.flush()
                self.pieces = 0
            self.phase = phase
            self._phase_watch.restart()

    def _add(self, text: str) -> str:
        self.text += text
        return text


def _over(step: ToolStep) -> ToolStep:
    """A step of which nothing goes on in this process."""
    calls = (
        replace(each, outcome="stopped") if each.outcome in ("waiting", "running") else each for each in step.calls
    )
    return replace(step, calls=tuple(calls))
