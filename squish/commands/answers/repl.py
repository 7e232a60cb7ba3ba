"""A model in a plain terminal: one prompt and its answer, or a conversation line by line.

The answer goes to stdout, all talk and what a model thinks to stderr. In a conversation Ctrl-C stops the answer and
keeps what was written; it ends a single prompt.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import msgspec

from squish import console
from squish.chats.messages import Attachment, ChatSettings, as_sent, with_files
from squish.chats.recorder import ChatRecorder
from squish.commands.answers import type_ahead
from squish.commands.answers.answering import Answered, kept_answer
from squish.errors import SquishError
from squish.generation import CUT, ChatPrompt, GenerationRequest, Message
from squish.text import clean

if TYPE_CHECKING:
    from squish.commands.answers.run_tools import RunTools
    from squish.sessions.backend import Backend

Files = tuple[Attachment, ...]
_PASTE_GAP = 0.02  # seconds between the lines of a paste

_HELP = """\
  /help            this help
  /clear           forget the conversation
  /system [TEXT]   set the system prompt (without TEXT: remove it) and start over
  /exit            leave; Ctrl-D does too
Ctrl-C stops an answer and keeps what was written. A line that ends with \\ continues on the next one."""


def chat_request(
    model: str, prompt: str, settings: ChatSettings, before: Sequence[Message] = (), files: Files = ()
) -> GenerationRequest:
    """The request of one message with what goes along with it. before: what was said so far."""
    head = (Message("system", settings.system),) if settings.system else ()
    messages = (*head, *before, Message("user", with_files(prompt, files)))
    return GenerationRequest(
        model, (ChatPrompt(messages, thinking=settings.thinking),), settings.sampling(), kv_bits=settings.kv_bits
    )


async def single(
    backend: Backend,
    request: GenerationRequest,
    text: str,
    *,
    as_json: bool,
    kept: ChatRecorder | None = None,
    tools: RunTools | None = None,
    files: Files = (),
) -> None:
    """One prompt: print the answer, or with as_json one object with usage and timings. text: what is kept of it."""
    if as_json:
        answered = await kept_answer(kept, text, backend, request, lambda piece: None, tools=tools, files=files)
        console.out_json(to_json(request.model, answered))
        return
    screen = console.AnswerPrinter()
    try:
        answered = await kept_answer(kept, text, backend, request, screen.write, tools=tools, files=files)
    finally:
        screen.end()
    if answered.finished.reason in CUT:
        _say_cut(request, answered)


def _say_cut(request: GenerationRequest, answered: Answered) -> None:
    """Raises SquishError where what reads the answer expects JSON, and would get the beginning of it."""
    usage = answered.finished.usage
    tokens, reached = usage.completion_tokens, f"its limit of {usage.completion_tokens} tokens"
    how = "Allow more with --max-tokens."
    if answered.finished.reason == "context":
        reached = f"the end of the context of {usage.total_tokens} tokens, prompt included"
        how = "Allow more with --context." if request.sampling.context else "A shorter prompt leaves more room."
    wanted = request.sampling.response_format
    if wanted is not None and wanted.kind in ("json_object", "json_schema") and not _is_json(answered.text):
        raise SquishError(f"The answer ends after {tokens} tokens, before its JSON was complete.", hint=how)
    console.note(f"The answer reached {reached}. {how}")


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


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
    """A conversation with one model. files: go along with the first message."""

    def __init__(
        self, backend: Backend, model: str, settings: ChatSettings, kept: ChatRecorder | None = None,
        tools: RunTools | None = None, files: Files = (),
    ) -> None:  # fmt: skip
        self._kept, self._tools, self._files = kept, tools, files
        self._backend = backend
        self._model = model
        self._settings = settings
        self._turns: list[Message] = kept.turns() if kept else []
        self._joins_lines = False

    async def once(self, text: str, *, as_json: bool) -> None:
        """Ask one prompt, and print its answer."""
        request = chat_request(self._model, text, self._settings, self._turns, self._files)
        await single(
            self._backend, request, text,
            as_json=as_json, kept=self._kept, tools=self._tools, files=self._files,
        )  # fmt: skip

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
        request = chat_request(self._model, text, self._settings, self._turns, self._files)
        screen = console.AnswerPrinter()
        try:
            # A question whether a tool may be called must not find its answer typed already.
            with nullcontext() if self._tools else type_ahead.kept():
                answered = runner.run(
                    kept_answer(
                        self._kept,
                        text,
                        self._backend,
                        request,
                        screen.write,
                        stop_on_interrupt=True,
                        tools=self._tools,
                        files=self._files,
                    )
                )
        except SquishError as error:
            screen.end()
            console.error(error)
            return
        screen.end()
        console.dim(answered.summary)
        if answered.text:
            self._turns += [Message("user", with_files(text, self._files)), *as_sent(answered.steps, answered.text)]
            self._files = ()


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
