"""What clients get back, in OpenAI's shapes: whole answers, stream chunks and usage.

Pure: generation values in, Structs out. It knows no HTTP.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from squish import __version__, generation
from squish.generation import Accepted, Finished, FinishReason, GenerationEvent, TextDelta

FINGERPRINT = f"squish-{__version__}"

Reason = Literal["stop", "length"]


class PromptTokensDetails(msgspec.Struct, frozen=True):
    cached_tokens: int


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class AnswerMessage(msgspec.Struct, frozen=True):
    role: str
    content: str
    refusal: None = None


class ChatChoice(msgspec.Struct, frozen=True):
    index: int
    message: AnswerMessage
    finish_reason: Reason
    logprobs: None = None


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, frozen=True):
    index: int
    delta: Delta
    finish_reason: Reason | None = None
    logprobs: None = None


class TextChoice(msgspec.Struct, frozen=True):
    """A choice of a text completion, whole or as a chunk of a stream."""

    text: str
    index: int
    finish_reason: Reason | None = None
    logprobs: None = None


class Body(msgspec.Struct, frozen=True):
    """A whole answer, or one chunk of a stream. usage is null in the chunks before the one that carries it."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: Sequence[ChatChoice | ChatChunkChoice | TextChoice]
    usage: Usage | UnsetType | None = UNSET


@dataclass(slots=True)
class Row:
    """One answer as it grows."""

    text: str = ""
    reason: Reason = "stop"
    usage: generation.Usage = field(default_factory=lambda: generation.Usage(0, 0))

    def add(self, event: TextDelta | Finished) -> None:
        if isinstance(event, TextDelta):
            self.text += event.text
        else:
            self.reason = reason_of(event.reason)
            self.usage = event.usage


@dataclass(frozen=True, slots=True)
class Head:
    """What all parts of one reply have in common. n: rows per prompt."""

    id: str
    created: int
    model: str
    n: int
    usage_in_stream: bool

    @classmethod
    def new(cls, prefix: str, model: str, n: int, usage_in_stream: bool) -> Head:
        return cls(f"{prefix}-{secrets.token_hex(12)}", int(time.time()), model, n, usage_in_stream)

    def body(
        self,
        kind: str,
        choices: Sequence[ChatChoice | ChatChunkChoice | TextChoice],
        usage: Usage | UnsetType | None = UNSET,
    ) -> Body:
        return Body(self.id, kind, self.created, self.model, FINGERPRINT, choices, usage)

    def chunk(self, kind: str, choice: ChatChunkChoice | TextChoice) -> Body:
        return self.body(kind, (choice,), None if self.usage_in_stream else UNSET)

    def usage(self, rows: Sequence[generation.Usage]) -> Usage:
        """The sum over rows. A prompt that has n answers counts once."""
        prompts = rows[:: self.n]
        prompt, completion = sum(u.prompt_tokens for u in prompts), sum(u.completion_tokens for u in rows)
        cached = PromptTokensDetails(sum(u.cached_tokens for u in prompts))
        return Usage(prompt, completion, prompt + completion, cached)


class Reply(Protocol):
    """One endpoint's way of saying things."""

    @property
    def head(self) -> Head: ...

    def whole(self, rows: Sequence[Row]) -> Body:
        """The answer in one piece."""

    def chunks(self, event: GenerationEvent) -> Sequence[Body]:
        """What a stream says about an event; often nothing."""

    def last(self, rows: Sequence[generation.Usage]) -> Body:
        """The chunk with the usage, for clients that asked for it."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    head: Head

    def whole(self, rows: Sequence[Row]) -> Body:
        choices = [ChatChoice(i, AnswerMessage("assistant", row.text), row.reason) for i, row in enumerate(rows)]
        return self.head.body("chat.completion", choices, self.head.usage([row.usage for row in rows]))

    def chunks(self, event: GenerationEvent) -> Sequence[Body]:
        match event:
            case Accepted(prompt_tokens=rows):
                return [self._chunk(i, Delta(role="assistant", content="")) for i in range(len(rows))]
            case TextDelta(index=index, text=text) if text:
                return [self._chunk(index, Delta(content=text))]
            case Finished(index=index, reason=reason):
                return [self._chunk(index, Delta(), reason_of(reason))]
            case _:
                return []

    def last(self, rows: Sequence[generation.Usage]) -> Body:
        return self.head.body("chat.completion.chunk", (), self.head.usage(rows))

    def _chunk(self, index: int, delta: Delta, reason: Reason | None = None) -> Body:
        return self.head.chunk("chat.completion.chunk", ChatChunkChoice(index, delta, reason))


@dataclass(frozen=True, slots=True)
class CompletionReply:
    head: Head

    def whole(self, rows: Sequence[Row]) -> Body:
        choices = [TextChoice(row.text, i, row.reason) for i, row in enumerate(rows)]
        return self.head.body("text_completion", choices, self.head.usage([row.usage for row in rows]))

    def chunks(self, event: GenerationEvent) -> Sequence[Body]:
        match event:
            case TextDelta(index=index, text=text) if text:
                return [self.head.chunk("text_completion", TextChoice(text, index))]
            case Finished(index=index, reason=reason):
                return [self.head.chunk("text_completion", TextChoice("", index, reason_of(reason)))]
            case _:
                return []

    def last(self, rows: Sequence[generation.Usage]) -> Body:
        return self.head.body("text_completion", (), self.head.usage(rows))


def reason_of(reason: FinishReason) -> Reason:
    """OpenAI has no word for an answer that was cancelled; cut short is what it is."""
    return "stop" if reason == "stop" else "length"
