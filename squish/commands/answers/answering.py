"""One answer in a plain terminal: shown as it comes, with the calls of tools in it, and saved where it is to be kept.

Text goes to who asks for it, everything else to stderr.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from squish import console, figures
from squish.chats.messages import Attachment, ToolStep
from squish.chats.recorder import ChatRecorder
from squish.commands import interrupts
from squish.errors import SquishError
from squish.generation import (
    REASONS,
    Finished,
    GenerationRequest,
    Loading,
    Prefill,
    Preparing,
    Queued,
    ReasoningDelta,
    TextDelta,
    Timings,
    Usage,
)

if TYPE_CHECKING:
    from squish.commands.answers.run_tools import RunTools
    from squish.mcp.events import AnswerPart
    from squish.sessions.backend import Backend


@dataclass(frozen=True, slots=True)
class Answered:
    """A finished answer. queue and load time are not in finished.timings, which begin in the worker."""

    text: str
    finished: Finished
    steps: tuple[ToolStep, ...] = ()

    @property
    def summary(self) -> str:
        usage, timings = self.finished.usage, self.finished.timings
        parts = [f"{usage.completion_tokens} tokens", f"TTFT {figures.seconds(timings.ttft)}{timings.counts}"]
        if speed := timings.decode_tps(usage.completion_tokens):
            parts.insert(1, figures.speed(speed))
        if timings.accepted_tokens:
            parts.append(f"{timings.accepted_tokens}/{timings.draft_tokens} drafts accepted")
        if self.finished.reason != "stop":
            parts.append(REASONS[self.finished.reason])
        return " · ".join(parts)


async def answer(
    backend: Backend,
    request: GenerationRequest,
    write: Callable[[str], None],
    think: Callable[[str], None] | None = None,
    *,
    stop_on_interrupt: bool = False,
    tools: RunTools | None = None,
    stepped: Callable[[tuple[ToolStep, ...]], None] | None = None,
) -> Answered:
    """Run a request of one row. write gets the text as it comes, think what the model thinks, which goes to stderr.

    stepped: gets the steps of an answer that uses tools, and what was written before belongs to them. Raises what
    generating raises.
    """
    stop_on_interrupt = stop_on_interrupt and interrupts.taken()
    shown = _Shown(request.model, write, think, stepped)
    ticking = asyncio.create_task(shown.tick(), name="seconds of waiting")
    try:
        if tools is not None:
            rounds = await tools.rounds(request, shown.take)
            if stop_on_interrupt:
                asyncio.get_running_loop().add_signal_handler(signal.SIGINT, rounds.stop)
            shown.tools = tools
            await tools.run(rounds, request)
        else:
            async with backend.sessions.generate(request) as generation:
                if stop_on_interrupt:
                    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, generation.cancel)
                async for event in generation:
                    shown.take(event)
    finally:
        ticking.cancel()
        shown.clear()
        if stop_on_interrupt:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
    return shown.answered()


class _Shown:
    """An answer as it comes: on the screen, and what is known of it at its end."""

    def __init__(
        self, model: str, write: Callable[[str], None], think: Callable[[str], None] | None,
        stepped: Callable[[tuple[ToolStep, ...]], None] | None,
    ) -> None:  # fmt: skip
        self._model, self._write, self._think, self._stepped = model, write, think, stepped
        self._status, self._thoughts = console.Status(), console.AnswerPrinter(sys.stderr)
        self._waiting, self._since = f"waiting for {model}…", time.monotonic()
        self._parts: list[str] = []
        self._finished: Finished | None = None
        self.tools: RunTools | None = None

    def take(self, event: AnswerPart) -> None:
        """Show what happened."""
        match event:
            case Queued(position=position):
                self._wait(f"waiting, place {position}…")
            case Loading(compiling=compiling):
                self._wait("compiling the engine (once)…" if compiling else f"loading {self._model}…")
            case Preparing(grammar=grammar):
                self._wait("compiling the grammar…" if grammar else "tokenizing…")
            case Prefill(done=done, total=total):
                self._wait(f"prefill {done}/{total}…")
            case ReasoningDelta(text=text):
                self._waiting = ""
                self._status.clear()
                self._thoughts.write(text)
                if self._think:
                    self._think(text)
            case TextDelta(text=text):
                self.clear()
                self._parts.append(text)
                self._write(text)
            case Finished():
                self._finished = _sum(self._finished, event)
            case _ if self.tools is not None:
                self._take_tools(event, self.tools)

    def _wait(self, text: str) -> None:
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting = text
        self._status.show(text)

    async def tick(self) -> None:
        """Seconds behind what is waited for: from here on, a server may say nothing for long."""
        while True:
            await asyncio.sleep(1)
            if self._waiting and self._status.is_live:
                self._status.show(f"{self._waiting} {figures.waited(time.monotonic() - self._since)}")

    def _take_tools(self, event: AnswerPart, tools: RunTools) -> None:
        from squish.mcp.events import AnswerStopped, Doing, Steps

        match event:
            case Doing(call=call, progress=progress) if progress:
                self._status.show(f"{call.name} {progress}…")
                return
            case Steps(steps=steps):
                if self._parts:
                    self._write("\n")
                self._parts.clear()
                if self._stepped:
                    self._stepped(steps)
            case AnswerStopped():
                cancelled = Finished(0, "cancelled", Usage(0, 0), Timings(0.0, 0.0))
                self._finished = _sum(self._finished, cancelled)
        self.clear()
        tools.show(event)

    def clear(self) -> None:
        """Leave nothing half-written on stderr."""
        self._waiting = ""
        self._status.clear()
        self._thoughts.end()

    def answered(self) -> Answered:
        if self._finished is None:
            raise AssertionError("a generation ends with Finished or raises")
        return Answered("".join(self._parts), self._finished, self.tools.steps if self.tools else ())


def _sum(before: Finished | None, last: Finished) -> Finished:
    """The end of an answer of several generations: all tokens that were written, and the latest prompt."""
    if before is None:
        return last
    usage, earlier = last.usage, before.usage
    return msgspec.structs.replace(
        last,
        usage=msgspec.structs.replace(
            usage,
            prompt_tokens=usage.prompt_tokens or earlier.prompt_tokens,
            completion_tokens=usage.completion_tokens + earlier.completion_tokens,
            reasoning_tokens=usage.reasoning_tokens + earlier.reasoning_tokens,
        ),
        timings=msgspec.structs.replace(
            last.timings,
            ttft=before.timings.ttft,
            decode=before.timings.decode + last.timings.decode,
            load=before.timings.load,
        ),
    )


async def kept_answer(
    kept: ChatRecorder | None,
    text: str,
    backend: Backend,
    request: GenerationRequest,
    write: Callable[[str], None],
    *,
    stop_on_interrupt: bool = False,
    tools: RunTools | None = None,
    files: tuple[Attachment, ...] = (),
) -> Answered:
    """`answer` to a text with its files, saved as it comes where it is to be kept."""
    if kept is None:
        return await answer(backend, request, write, stop_on_interrupt=stop_on_interrupt, tools=tools)
    kept.ask(text, files)
    finished, error = None, ""

    def both(piece: str) -> None:
        kept.write(piece)
        write(piece)

    try:
        answered = await answer(
            backend, request, both, kept.think,
            stop_on_interrupt=stop_on_interrupt, tools=tools, stepped=kept.step,
        )  # fmt: skip
        finished = answered.finished
        return answered
    except SquishError as problem:
        error = problem.message
        raise
    finally:
        kept.end(finished, error)
