"""A streamed answer of OpenAI's API as events of an engine of ours. Pure, but for the clock that it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from squish.errors import RemoteError
from squish.generation import (
    LARGEST,
    Accepted,
    Finished,
    FinishReason,
    GenerationEvent,
    Prefill,
    ReasoningDelta,
    Timings,
    ToolCallDelta,
    Usage,
)
from squish.remote.thoughts import ThoughtSplitter, parts_of
from squish.remote.wire import CallPiece, ChunkPiece, DeltaPiece, PromptProgress, TimingsPiece, UsagePiece, figures

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
_MOST_CALLS = 128
_LEFT_FREE = 2  # tokens: some servers end an answer that much before the context is full
_DONE = b"[DONE]"
_MEASURED_FROM = 0.1  # seconds: how fast pieces were written that arrive together cannot be seen from here


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """Of an answer, in tokens. max_tokens: its own, as it was asked for. context: with its prompt; 0 is not known."""

    max_tokens: int = LARGEST
    context: int = 0

    def reached(self, prompt: int, written: int) -> FinishReason:
        """Which of them cut an answer: OpenAI's API has one word for both."""
        full = self.context and prompt + written >= self.context - _LEFT_FREE
        return "context" if full and written < self.max_tokens else "length"


class ChunkReader:
    """Data of events in, events of a generation out.

    clock gives seconds; said: an error's words, made fit to show. accepts: as in Fields. server: as in Timings.
    limits: of the answer.
    """

    def __init__(
        self, clock: Callable[[], float], said: Callable[[bytes], str], accepts: bool = False, server: str = "",
        limits: AnswerLimits | None = None,
    ) -> None:  # fmt: skip
        self._clock, self._said, self._accepts = clock, said, accepts
        self._server, self._limits = server, limits or AnswerLimits()
        self._accepted = False
        self._sent = clock()
        self._first: float | None = None
        self._last = self._sent
        self._pieces = self._thoughts = 0
        self._usage: UsagePiece | None = None
        self._timings: TimingsPiece | None = None
        self._reason: FinishReason | None = None
        self._prompt: int | None = None
        self._calls: dict[int, str] = {}
        self._splitter = ThoughtSplitter()
        self.done = False  # the server has said that it is

    def loads(self) -> None:
        """The server says beside the answer that it still loads the model: only what comes after it is TTFT."""
        if self._first is None and not self._accepted:
            self._sent = self._clock()

    def feed(self, data: bytes) -> Iterator[GenerationEvent]:
        """Raises RemoteError for what is not a chunk, and for an error that the server sends in its place."""
        if data.strip() == _DONE:
            self.done = True
            return
        try:
            chunk = msgspec.json.decode(data, type=ChunkPiece)
        except (msgspec.MsgspecError, RecursionError):
            raise RemoteError("The server sends something that is not a part of an answer.") from None
        if chunk.error:
            raise RemoteError(self._said(data) or "The server ended the answer with an error.")
        self._usage = figures(chunk.usage, UsagePiece) or self._usage
        self._timings = figures(chunk.timings, TimingsPiece) or self._timings
        if progress := figures(chunk.prompt_progress, PromptProgress):
            total = max(progress.total, 0)
            if self._prompt is None:
                yield Accepted((total,))
            self._prompt, cached = total, min(max(progress.cache, 0), total)
            yield Prefill(0, min(max(progress.processed, cached), total) - cached, total - cached)
        for choice in (chunk.choices or [])[:1]:
            if choice.delta is not None:
                yield from self._delta(choice.delta)
            if choice.finish_reason is not None:
                self._reason = _REASONS.get(choice.finish_reason, "stop")

    def end(self) -> Iterator[GenerationEvent]:
        """The stream is over. Raises RemoteError where the answer is not complete."""
        yield from self._splitter.end()
        if self._reason is None and not (self.done and self._pieces):
            raise RemoteError("The server ended its answer before it was complete.", hint="Try again.")
        yield self.finished(self._reason or "stop")

    def finished(self, reason: FinishReason) -> Finished:
        """The end with the server's own figures, or where it has none, with what was seen from here."""
        usage, timings = self._usage or UsagePiece(), self._timings or TimingsPiece()
        prompt = usage.prompt_tokens if usage.prompt_tokens is not None else self._prompt
        if prompt is None:
            prompt = (timings.prompt_n or 0) + (timings.cache_n or 0)
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
        thought = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None
        written = usage.completion_tokens if usage.completion_tokens is not None else timings.predicted_n
        written = self._pieces if written is None else written
        seen = (self._first if self._first is not None else self._clock()) - self._sent
        decode = self._last - self._first if self._first is not None else 0.0
        if decode < _MEASURED_FROM:
            decode = 0.0
        if reason == "length":
            reason = self._limits.reached(max(prompt, 0), max(written, 0))
        return Finished(
            0,
            reason,
            Usage(
                max(prompt, 0),
                max(written, 0),
                max(cached if cached is not None else timings.cache_n or 0, 0),
                max(thought if thought is not None else self._thoughts, 0),
            ),
            Timings(
                seen if timings.prompt_ms is None else max(timings.prompt_ms / 1000, 0.0),
                decode if timings.predicted_ms is None else max(timings.predicted_ms / 1000, 0.0),
                draft_tokens=max(timings.draft_n or 0, 0),
                accepted_tokens=max(timings.draft_n_accepted or 0, 0),
                with_queue=timings.prompt_ms is None and not self._accepted,
                server=self._server,
            ),
        )

    def _delta(self, delta: DeltaPiece) -> Iterator[GenerationEvent]:
        if self._accepts and not self._accepted and delta.role:
            self._accepted, self._sent = True, self._clock()
        thought, text = parts_of(delta.content)
        if thought := delta.reasoning_content or delta.reasoning or thought:
            self._seen()
            self._thoughts += 1
            yield ReasoningDelta(0, thought)
        if text:
            self._seen()
            for event in self._splitter.feed(text):
                self._thoughts += isinstance(event, ReasoningDelta)
                yield event
        for at, call in enumerate(delta.tool_calls or ()):
            self._seen()
            yield from self._call(call, at)

    def _seen(self) -> None:
        self._last = self._clock()
        if self._first is None:
            self._first = self._last
        self._pieces += 1

    def _call(self, piece: CallPiece, at: int) -> Iterator[ToolCallDelta]:
        index = piece.index
        if index is None:  # then a piece with an id of its own begins another call
            known = {id: each for each, id in self._calls.items()}
            index = known.get(piece.id, len(self._calls)) if piece.id else max(len(self._calls) - 1, at)
        if not 0 <= index < _MOST_CALLS:
            raise RemoteError("The server sends more calls of tools than can be made.")
        id = self._calls.setdefault(index, piece.id or f"call_{index}")
        function = piece.function
        if function is None:
            return
        arguments = function.arguments or ""
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        yield ToolCallDelta(0, index, id, function.name, arguments)
