"""A model in a plain terminal: one prompt and its answer, or a conversation line by line.

The answer goes to stdout, all talk and what a model thinks to stderr. In a conversation Ctrl-C stops the answer and
keeps what was written; it ends a single prompt.
"""

from __future__ import annotations

import asyncio
import select
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from squish import console, figures
from squish.chats.messages import ChatSettings, ToolStep, as_sent
from squish.chats.recorder import ChatRecorder
from squish.errors import SquishError
from squish.generation import (
    ChatPrompt,
    Finished,
    GenerationRequest,
    Loading,
    Message,
    Prefill,
    Queued,
    ReasoningDelta,
    TextDelta,
    Timings,
    Usage,
)
from squish.runtime import Runtime
from squish.text import clean

if TYPE_CHECKING:
    from squish.commands.run_tools import RunTools
    from squish.mcp.events import AnswerPart

_PASTE_GAP = 0.02  # seconds between the lines of a paste

_HELP = """\
  /help            this help
  /clear           forget the conversation
  /system [TEXT]   set the system prompt (without TEXT: remove it) and start over
  /exit            leave; Ctrl-D does too
Ctrl-C stops an answer and keeps what was written. A line that ends with \\ continues on the next one."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A finished answer. queue and load time are not in finished.timings, which begin in the worker."""

    text: str
    finished: Finished
    steps: tuple[ToolStep, ...] = ()

    @property
    def summary(self) -> str:
        usage, timings = self.finished.usage, self.finished.timings
        parts = [f"{usage.completion_tokens} tokens", f"TTFT {figures.seconds(timings.ttft)}"]
        if speed := timings.decode_tps(usage.completion_tokens):
            parts.insert(1, figures.speed(speed))
        if timings.accepted_tokens:
            parts.append(f"{timings.accepted_tokens} guessed")
        if self.finished.reason != "stop":
            reasons = {"length": "token limit reached", "cancelled": "stopped"}
            parts.append(reasons.get(self.finished.reason, self.finished.reason))
        return " · ".join(parts)


def chat_request(model: str, prompt: str, settings: ChatSettings, before: Sequence[Message] = ()) -> GenerationRequest:
    """The request of one message. before: what was said so far."""
    head = (Message("system", settings.system),) if settings.system else ()
    messages = (*head, *before, Message("user", prompt))
    return GenerationRequest(model, (ChatPrompt(messages, thinking=settings.thinking),), settings.sampling())


async def answer(
    runtime: Runtime,
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
    shown = _Shown(request.model, write, think, stepped)
    try:
        if tools is not None:
            rounds = await tools.rounds(request, shown.take)
            if stop_on_interrupt:
                asyncio.get_running_loop().add_signal_handler(signal.SIGINT, rounds.stop)
            shown.tools = tools
            await tools.run(rounds, request)
        else:
            async with runtime.sessions.generate(request) as generation:
                if stop_on_interrupt:
                    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, generation.cancel)
                async for event in generation:
                    shown.take(event)
    finally:
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
        self._parts: list[str] = []
        self._finished: Finished | None = None
        self.tools: RunTools | None = None

    def take(self, event: AnswerPart) -> None:
        """Show what happened."""
        match event:
            case Queued(position=position):
                self._status.show(f"waiting, place {position}…")
            case Loading():
                self._status.show(f"loading {self._model}…")
            case Prefill(done=done, total=total):
                self._status.show(f"prefill {done}/{total}…")
            case ReasoningDelta(text=text):
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
        timings=Timings(before.timings.ttft, before.timings.decode + last.timings.decode, before.timings.load),
    )


async def kept_answer(
    kept: ChatRecorder | None,
    text: str,
    runtime: Runtime,
    request: GenerationRequest,
    write: Callable[[str], None],
    *,
    stop_on_interrupt: bool = False,
    tools: RunTools | None = None,
) -> Answered:
    """`answer` to a text, saved as it comes where it is to be kept."""
    if kept is None:
        return await answer(runtime, request, write, stop_on_interrupt=stop_on_interrupt, tools=tools)
    kept.ask(text)
    finished, error = None, ""

    def both(piece: str) -> None:
        kept.write(piece)
        write(piece)

    try:
        answered = await answer(
            runtime, request, both, kept.think,
            stop_on_interrupt=stop_on_interrupt, tools=tools, stepped=kept.step,
        )  # fmt: skip
        finished = answered.finished
        return answered
    except SquishError as problem:
        error = problem.message
        raise
    finally:
        kept.end(finished, error)


async def single(
    runtime: Runtime,
    request: GenerationRequest,
    text: str,
    *,
    as_json: bool,
    kept: ChatRecorder | None = None,
    tools: RunTools | None = None,
) -> None:
    """One prompt: print the answer, or with as_json one object with usage and timings. text: what is kept of it."""
    if as_json:
        answered = await kept_answer(kept, text, runtime, request, lambda piece: None, tools=tools)
        console.out_json(to_json(request.model, answered))
        return
    screen = console.AnswerPrinter()
    try:
        await kept_answer(kept, text, runtime, request, screen.write, tools=tools)
    finally:
        screen.end()


def to_json(model: str, answered: Answered) -> dict[str, object]:
    """What `squish run --json` prints."""
    finished = answered.finished
    usage, timings = finished.usage, finished.timings
    called = {"steps": msgspec.to_builtins(answered.steps)} if answered.steps else {}
    return {
        "model": model,
        "text": answered.text,
        **called,
        "finish_reason": finished.reason,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
            "cached_tokens": usage.cached_tokens,
        },
        "timings": {
            "ttft_s": round(timings.ttft, 4),
            "decode_s": round(timings.decode, 4),
            "decode_tokens_per_s": round(timings.decode_tps(usage.completion_tokens), 2),
            "draft_tokens": timings.draft_tokens,
            "accepted_tokens": timings.accepted_tokens,
        },
    }


class Repl:
    """A conversation with one model."""

    def __init__(
        self, runtime: Runtime, model: str, settings: ChatSettings, kept: ChatRecorder | None = None,
        tools: RunTools | None = None,
    ) -> None:  # fmt: skip
        self._kept, self._tools = kept, tools
        self._runtime = runtime
        self._model = model
        self._settings = settings
        self._turns: list[Message] = kept.turns() if kept else []
        self._joins_lines = False

    def run(self, runner: asyncio.Runner) -> None:
        """Read, answer, until /exit or Ctrl-D."""
        self._joins_lines = sys.stdin.isatty() and not _edits_pastes()
        if sys.stdin.isatty():
            console.note(f"{self._model} · /help for help, Ctrl-D to leave")
        while (line := self._read()) is not None:
            if line.startswith("/") and "\n" not in line:
                if not self._command(line):
                    return
            elif line.strip():
                self._turn(runner, line)

    def _read(self) -> str | None:
        """The next message; None at the end of input."""
        lines: list[str] = []
        while True:
            # What was typed while an answer came is not a paste.
            joins = self._joins_lines and (bool(lines) or not _line_waits())
            try:
                line = input(("... " if lines else ">>> ") if sys.stdin.isatty() else "")
            except EOFError:
                console.note() if sys.stdin.isatty() else None
                return "\n".join(lines) if lines else None
            except KeyboardInterrupt:
                console.note()
                lines.clear()
                continue
            if line.endswith("\\"):
                lines.append(line[:-1])
            elif joins and _line_waits(_PASTE_GAP):
                lines.append(line)
            else:
                return clean("\n".join([*lines, line]))

    def _command(self, line: str) -> bool:
        """Carry out a slash command; False ends the conversation."""
        name, _, rest = line.strip().partition(" ")
        match name:
            case "/exit" | "/quit" | "/bye":
                return False
            case "/help" | "/?":
                console.note(_HELP)
            case "/clear":
                self._start_anew()
                console.note("A new conversation begins." if self._kept else "The conversation is forgotten.")
            case "/system":
                self._settings = msgspec.structs.replace(self._settings, system=rest.strip())
                self._start_anew()
                console.note("The system prompt is set." if self._settings.system else "No system prompt is set.")
            case _:
                console.note(f"{name} is not a command; /help lists them.")
        return True

    def _start_anew(self) -> None:
        self._turns.clear()
        if self._kept:
            self._kept.start_anew(self._settings)

    def _turn(self, runner: asyncio.Runner, text: str) -> None:
        request = chat_request(self._model, text, self._settings, self._turns)
        screen = console.AnswerPrinter()
        try:
            answered = runner.run(
                kept_answer(
                    self._kept, text, self._runtime, request, screen.write, stop_on_interrupt=True, tools=self._tools
                )
            )
        except SquishError as error:
            screen.end()
            console.error(error)
            return
        screen.end()
        console.dim(answered.summary)
        if answered.text:
            self._turns += [Message("user", text), *as_sent(answered.steps, answered.text)]


def with_stdin(prompt: str | None) -> str | None:
    """The prompt of the command line with what is piped in behind it; None when there is neither."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read().decode("utf-8", errors="replace")
    parts = [part for part in (prompt, piped.strip("\n")) if part and part.strip()]
    return "\n\n".join(parts) or None


def _edits_pastes() -> bool:
    """Switch line editing on in input(), where Python has it; whether a paste of several lines stays one input.

    GNU readline takes it as one. libedit, which macOS has, and no readline at all hand it out line by line.
    """
    try:
        import readline
    except ImportError:
        return False
    if "libedit" in (readline.__doc__ or ""):
        return False
    readline.parse_and_bind("set enable-bracketed-paste on")  # Python switches it off
    return True


def _line_waits(seconds: float = 0.0) -> bool:
    """Whether more is to be read on the terminal already: nobody types the next line in the same moment."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])
