"""What the markers in a model's text mean: where it thinks, where it answers, where it calls a tool.

Which markers there are comes from mlx-lm's tokenizer. Text that may still become a marker is held back, and markers
come out only as spans of their own. It knows neither tokens nor how a call is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Channel = Literal["normal", "reasoning", "tool"]

# From each channel: a marker, and the channel that it leads to.
Edges = Mapping[Channel, tuple[tuple[str, Channel], ...]]


@dataclass(frozen=True, slots=True)
class Span:
    """text[start:start + len(text)] of the whole answer. to: it is a marker, which nobody reads, and leads there."""

    channel: Channel
    start: int
    text: str
    to: Channel | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def edges_of(tokenizer: Any, *, tools: bool) -> Edges:
    """The markers of a model. tokenizer: mlx_lm's TokenizerWrapper; tools: whether calls are separated from text."""
    edges: dict[Channel, list[tuple[str, Channel]]] = {"normal": [], "reasoning": [], "tool": []}
    if tokenizer.has_thinking:
        edges["normal"].append((tokenizer.think_start, "reasoning"))
        edges["reasoning"].append((tokenizer.think_end, "normal"))
    calls = tools and tokenizer.has_tool_calling
    for channel, found in tokenizer.response_transitions.items():
        if channel in edges:
            known = [(marker, to) for marker, to in found if to in edges and (calls or to != "tool")]
            edges[channel].extend(known)
    if calls:
        if not any(to == "tool" for _, to in edges["normal"]):
            edges["normal"].append((tokenizer.tool_call_start, "tool"))
        if tokenizer.has_thinking:
            edges["reasoning"].append((tokenizer.tool_call_start, "tool"))
        if tokenizer.tool_call_end:
            edges["tool"].append((tokenizer.tool_call_end, "normal"))
    edges["normal"].extend((marker, "normal") for marker in tokenizer.structural_markers)
    return {channel: tuple(found) for channel, found in edges.items() if found}


class Splitter:
    """Cuts text that arrives in pieces into spans."""

    def __init__(self, edges: Edges, channel: Channel = "normal") -> None:
        self.channel: Channel = channel
        self._edges = edges
        self._held = ""
        self._start = 0

    def feed(self, text: str) -> Iterator[Span]:
        """The spans that are certain now."""
        self._held += text
        while True:
            edges = self._edges.get(self.channel, ())
            found = [(at, -len(marker), marker, to) for marker, to in edges if (at := self._held.find(marker)) >= 0]
            if not found:
                keep = max((overlap(self._held, marker) for marker, _ in edges), default=0)
                yield from self._take(len(self._held) - keep)
                return
            at, _, marker, to = min(found)
            yield from self._take(at)
            yield from self._take(len(marker), to)
            self.channel = to

    def flush(self) -> Iterator[Span]:
        """What was held back, when no more text comes."""
        yield from self._take(len(self._held))

    def _take(self, length: int, to: Channel | None = None) -> Iterator[Span]:
        if length:
            span = Span(self.channel, self._start, self._held[:length], to)
            self._held = self._held[length:]
            self._start += length
            yield span


def overlap(text: str, word: str) -> int:
    """Length of the longest end of text that is a beginning of word, but not all of it."""
    for size in range(min(len(word) - 1, len(text)), 0, -1):
        if text.endswith(word[:size]):
            return size
    return 0
