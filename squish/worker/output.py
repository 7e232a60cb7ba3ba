"""From a row's tokens to its events: detokenization, stop strings on text, counts and timings.

No part of a stop string is ever sent: text that may still become one is held back. It knows nothing of batches.
"""

from __future__ import annotations

import time
from typing import Any

from squish.generation import Finished, FinishReason, GenerationEvent, TextDelta, Timings, Usage


class StopMatcher:
    """Looks for stop strings in text that arrives in pieces."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.matched = False

    def feed(self, text: str) -> str:
        """Text that can be sent. After a match `matched` is true and nothing more comes out."""
        if self.matched or not self._stops:
            return "" if self.matched else text
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.matched = True
            self._held = ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of text that is a beginning of stop."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0


class RowOutput:
    """One row's way out. detokenizer: a fresh mlx_lm StreamingDetokenizer. eos: tokens that end the answer unseen."""

    def __init__(
        self,
        index: int,
        detokenizer: Any,
        eos: frozenset[int],
        stops: tuple[str, ...],
        prompt_tokens: int,
        arrived: float,
    ) -> None:
        self._index = index
        self._detokenizer = detokenizer
        self._eos = eos
        self._stops = StopMatcher(stops)
        self._prompt_tokens = prompt_tokens
        self._arrived = arrived
        self._first: float | None = None
        self.tokens: list[int] = []
        self.cached_tokens = 0

    def feed(self, token: int, finish: FinishReason | None) -> tuple[list[GenerationEvent], bool]:
        """Take one token. finish: why the engine ends the row with it. Returns events and whether the row has ended."""
        if self._first is None:
            self._first = time.monotonic()
        self.tokens.append(token)
        if token not in self._eos:
            self._detokenizer.add_token(token)
        events = self._text(self._stops.feed(self._detokenizer.last_segment))
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
            text = self._stops.feed(self._detokenizer.last_segment)
            events = self._text(text + self._stops.flush())
            if self._stops.matched and reason != "cancelled":
                reason = "stop"
        now = time.monotonic()
        first = self._first if self._first is not None else now
        usage = Usage(self._prompt_tokens, len(self.tokens), self.cached_tokens)
        return [*events, Finished(self._index, reason, usage, Timings(first - self._arrived, now - first))]

    def _text(self, text: str) -> list[GenerationEvent]:
        return [TextDelta(self._index, text)] if text else []
