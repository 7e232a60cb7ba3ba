"""Thoughts in a server's text: an answer that begins with `<think>`, or has parts that are thoughts, where the server
leaves them there. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from squish.generation import ReasoningDelta, TextDelta

_OPEN, _CLOSE = "<think>", "</think>"


def parts_of(content: str | list[Any] | None) -> tuple[str, str]:
    """The thoughts and the text of a piece of content: text, or a list of parts as Mistral's models send them."""
    if not isinstance(content, list):
        return "", content or ""
    thoughts = text = ""
    for part in content:
        match part:
            case str():
                text += part
            case {"type": "thinking", "thinking": str() | list() as thought}:
                thoughts += "".join(parts_of(thought))
            case {"text": str() as said}:
                text += said
    return thoughts, text


class ThoughtSplitter:
    """Pieces of text in, text and thoughts out. Only what stands before the answer is a thought."""

    def __init__(self) -> None:
        self._held = ""
        self._state = "before"  # the first word; then thoughts, the gap behind them, text

    def feed(self, text: str) -> Iterator[TextDelta | ReasoningDelta]:
        if self._state == "gap" and (text := text.lstrip("\n")):
            self._state = "text"
        if self._state in ("text", "gap"):
            if text:
                yield TextDelta(0, text)
            return
        self._held += text
        if self._state == "before":
            begun = self._held.lstrip()
            if begun.startswith(_OPEN):
                self._state, self._held = "thoughts", begun.removeprefix(_OPEN).removeprefix("\n")
            elif not _OPEN.startswith(begun):
                self._state, held, self._held = "text", self._held, ""
                yield TextDelta(0, held)
        if self._state == "thoughts":
            yield from self._thoughts()

    def end(self) -> Iterator[TextDelta | ReasoningDelta]:
        """What was held back."""
        held, self._held = self._held, ""
        if held and self._state == "thoughts":
            yield ReasoningDelta(0, held)
        elif held.strip():
            yield TextDelta(0, held)

    def _thoughts(self) -> Iterator[TextDelta | ReasoningDelta]:
        thought, closed, text = self._held.partition(_CLOSE)
        if closed:
            self._state, self._held = "gap", ""
            if thought:
                yield ReasoningDelta(0, thought)
            yield from self.feed(text)
            return
        keep = next((n for n in range(len(_CLOSE) - 1, 0, -1) if self._held.endswith(_CLOSE[:n])), 0)
        thought, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        if thought:
            yield ReasoningDelta(0, thought)
