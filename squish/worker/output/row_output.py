"""From a row's tokens to its events: detokenization, channels, stop strings on text, counts and timings.

No part of a stop string is ever sent: text that may still become one is held back. A tool call that cannot be read
comes back as the text that it is. It knows nothing of batches.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from squish.generation import (
    CUT,
    Finished,
    FinishReason,
    GenerationEvent,
    ReasoningDelta,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from squish.worker.output.logprobs import Ledger
from squish.worker.output.markers import Channel, Edges, Span, Splitter, overlap
from squish.worker.prompt.tools import Parser, read_calls


@dataclass(frozen=True, slots=True)
class Reading:
    """How a row's answer is to be read. edges: the model's markers; start: the channel in which the prompt ends.

    parser: mlx-lm's, for what stands in the tool channel; tools: what it learns of them.
    """

    edges: Edges
    start: Channel = "normal"
    parser: Parser | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)


class StopMatcher:
    """Looks for stop strings in text that arrives in pieces. matched: the one that was complete first, None before."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Text that can be sent; after a match none."""
        if self.matched or not self._stops:
            return "" if self.matched else text
        text = self._held + text
        # The one that is complete first, however the text is cut into pieces; of two with one end, the longer one.
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            _, at, self.matched = min(found)
            self._held = ""
            return text[:at]
        keep = max(overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


class Content:
    """An answer's text on its way out. With a ledger it leaves at the ends of tokens, with what is known of them.

    length: characters of the whole text so far, of which a part may be no answer.
    """

    def __init__(self, index: int, ledger: Ledger | None) -> None:
        self.length = 0
        self._index = index
        self._ledger = ledger
        self._start: int | None = None  # where the text begins that has not left yet
        self._unsent = ""

    def went_on(self, segment: str) -> None:
        """The whole text has become longer."""
        self.length += len(segment)
        if self._ledger:
            self._ledger.went_on(segment)

    def note(self, logprob: TokenLogprob | None) -> None:
        """The token that makes it longer next."""
        if self._ledger and logprob:
            self._ledger.note(logprob)

    def send(self, start: int | None, text: str, whole: bool) -> list[GenerationEvent]:
        """text may leave. start: where that began which was looked at last, None for nothing; whole: nothing follows
        without a gap, so that the last token need not be complete."""
        if not self._ledger:
            return [TextDelta(self._index, text)] if text else []
        if self._start is None:
            self._start = start
        self._unsent += text
        if self._start is None:
            return []
        end = self._start + len(self._unsent)
        if not whole:
            end = max(self._ledger.boundary(end), self._start)
        text, self._unsent = self._unsent[: end - self._start], self._unsent[end - self._start :]
        entries = self._ledger.take(self._start, end)
        self._start = None if whole else end
        return [TextDelta(self._index, text, entries)] if text else []


class RowOutput:
    """One row's way out. detokenizer: a fresh mlx_lm StreamingDetokenizer. eos: tokens that end the answer unseen.

    reading: None where all is text. logprobs: whether `feed` is given an entry with every token.
    """

    def __init__(
        self,
        index: int,
        detokenizer: Any,
        eos: frozenset[int],
        stops: tuple[str, ...],
        prompt_tokens: int,
        arrived: float,
        reading: Reading | None = None,
        logprobs: bool = False,
    ) -> None:
        self._index = index
        self._detokenizer = detokenizer
        self._eos = eos
        self._stops = StopMatcher(stops)
        self._prompt_tokens = prompt_tokens
        self._arrived = arrived
        self._reading = reading
        self._splitter = Splitter(reading.edges, reading.start) if reading else None
        self._content = Content(index, Ledger() if logprobs else None)
        self._first: float | None = None
        self._reasoning_tokens = 0
        self._at_beginning = reading is not None and reading.start == "reasoning"
        self._call: list[str] = []  # an open call: its marker and what followed
        self._call_start = 0
        self._calls = 0
        self.tokens: list[int] = []
        self.cached_tokens = 0
        self._drafted = self._accepted = 0

    def guessed(self, drafted: int, accepted: int) -> None:
        """So many tokens were guessed, and so many of them right."""
        self._drafted += drafted
        self._accepted += accepted

    def feed(
        self, token: int, finish: FinishReason | None, logprob: TokenLogprob | None = None
    ) -> tuple[list[GenerationEvent], bool]:
        """Take one token. finish: why the engine ends the row with it. Returns events and whether the row has ended."""
        if self._first is None:
            self._first = time.monotonic()
        self.tokens.append(token)
        if self._splitter and self._splitter.channel == "reasoning":
            self._reasoning_tokens += 1
        if token not in self._eos:
            self._detokenizer.add_token(token)
            self._content.note(logprob)
        events = self._read(self._detokenizer.last_segment)
        if self._stops.matched:
            finish = "stop"
        if finish is None:
            return events, False
        return events + self.finish(finish), True

    def finish(self, reason: FinishReason) -> list[GenerationEvent]:
        """The row's last events: text still held back, and Finished."""
        events: list[GenerationEvent] = []
        if not self._stops.matched:
            self._detokenizer.finalize()
            events = self._read(self._detokenizer.last_segment)
            if self._splitter:
                events += self._spans(self._splitter.flush())
                if self._call:
                    events += self._end_call(self._is_whole(reason))
            events += self._pause()
            if self._stops.matched and reason != "cancelled":
                reason = "stop"
        if reason == "stop" and self._calls and not self._stops.matched:
            reason = "tool_calls"
        now = time.monotonic()
        first = self._first if self._first is not None else now
        usage = Usage(self._prompt_tokens, len(self.tokens), self.cached_tokens, self._reasoning_tokens)
        timings = Timings(first - self._arrived, now - first, 0.0, self._drafted, self._accepted)
        return [*events, Finished(self._index, reason, usage, timings, self._stops.matched)]

    def _read(self, segment: str) -> list[GenerationEvent]:
        """More text has come out of the detokenizer."""
        self._content.went_on(segment)
        if self._splitter:
            return self._spans(self._splitter.feed(segment))
        return self._text(self._content.length - len(segment), segment)

    def _spans(self, spans: Iterable[Span]) -> list[GenerationEvent]:
        events: list[GenerationEvent] = []
        for span in spans:
            if self._stops.matched:
                break
            events += self._marker(span) if span.to else self._part(span)
        return events

    def _part(self, span: Span) -> list[GenerationEvent]:
        """Text of a channel. The line breaks that follow a marker belong to the marker."""
        if span.channel == "tool":
            self._call.append(span.text)
            return []
        text = span.text.lstrip("\n") if self._at_beginning else span.text
        if not text:
            return []
        self._at_beginning = False
        if span.channel == "reasoning":
            return [ReasoningDelta(self._index, text)]
        return self._text(span.end - len(text), text)

    def _marker(self, span: Span) -> list[GenerationEvent]:
        events = self._pause()
        self._at_beginning = True
        if span.channel == "tool":
            self._call.append(span.text)
            events += self._end_call(whole=True)
        elif span.to == "tool":
            self._call = [span.text]
            self._call_start = span.start
        return events

    def _is_whole(self, reason: FinishReason) -> bool:
        """Whether a call that no marker ended may be a whole one: formats without an end marker end with the answer."""
        assert self._reading
        return reason == "stop" or (reason in CUT and not self._reading.edges.get("tool"))

    def _end_call(self, whole: bool) -> list[GenerationEvent]:
        """The calls in what was gathered between two markers, or that text."""
        parts, self._call = self._call, []
        assert self._reading
        ends = [marker for marker, _ in self._reading.edges.get("tool", ())]
        body = "".join(parts[1:-1] if parts[-1] in ends else parts[1:])
        parser = self._reading.parser
        calls = read_calls(parser, body, self._reading.tools) if whole and parser else []
        if not calls:
            self._at_beginning = False
            return self._text(self._call_start, "".join(parts))
        events: list[GenerationEvent] = []
        for call in calls:
            events.append(ToolCallDelta(self._index, self._calls, call.id, call.name, ""))
            events.append(ToolCallDelta(self._index, self._calls, call.id, None, call.arguments))
            self._calls += 1
        return events

    def _text(self, start: int, text: str) -> list[GenerationEvent]:
        """Text of the answer proper, which stop strings may end."""
        sent = self._stops.feed(text)
        return self._content.send(start, sent, whole=self._stops.matched is not None)

    def _pause(self) -> list[GenerationEvent]:
        """Something else than text follows: what was held back has nothing to become."""
        return self._content.send(None, self._stops.flush(), whole=True)
