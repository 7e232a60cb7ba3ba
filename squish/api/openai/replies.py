"""Generation events as OpenAI's answers and stream chunks. Pure: values in, Structs out. It knows no HTTP."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import UNSET, UnsetType

from squish import __version__, generation
from squish.api.dialect import Row
from squish.api.frames import ServerSentEvents
from squish.api.openai.responses import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    Completion,
    Delta,
    FinishReason,
    PromptTokensDetails,
    TextChoice,
    Usage,
)
from squish.generation import Accepted, Finished, GenerationEvent, TextDelta

FINGERPRINT = f"squish-{__version__}"


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

    @property
    def no_usage(self) -> UnsetType | None:
        """What stands for the usage in the chunks before the one that carries it."""
        return None if self.usage_in_stream else UNSET

    def usage(self, rows: Sequence[Row]) -> Usage:
        """The sum over rows. A prompt that has n answers counts once."""
        prompts = [row.usage for row in rows[:: self.n]]
        prompt, completion = sum(u.prompt_tokens for u in prompts), sum(row.usage.completion_tokens for row in rows)
        cached = PromptTokensDetails(sum(u.cached_tokens for u in prompts))
        return Usage(prompt, completion, prompt + completion, cached)


class ChatReply:
    """POST /v1/chat/completions."""

    frames = ServerSentEvents()

    def __init__(self, head: Head) -> None:
        self._head = head

    def whole(self, rows: Sequence[Row]) -> ChatCompletion:
        head = self._head
        return ChatCompletion(
            id=head.id,
            created=head.created,
            model=head.model,
            system_fingerprint=FINGERPRINT,
            choices=[self._choice(i, row) for i, row in enumerate(rows)],
            usage=head.usage(rows),
        )

    def chunks(self, event: GenerationEvent) -> Sequence[ChatChunk]:
        match event:
            case Accepted(prompt_tokens=rows):
                return [self._chunk(i, Delta(role="assistant", content="")) for i in range(len(rows))]
            case TextDelta(index=index, text=text) if text:
                return [self._chunk(index, Delta(content=text))]
            case Finished(index=index, reason=reason):
                return [self._chunk(index, Delta(), reason_of(reason))]
            case _:
                return []

    def last(self, rows: Sequence[Row]) -> Sequence[ChatChunk]:
        return [self._body([], self._head.usage(rows))] if self._head.usage_in_stream else []

    def _choice(self, index: int, row: Row) -> ChatChoice:
        return ChatChoice(index=index, message=AnswerMessage(content=row.text), finish_reason=reason_of(row.reason))

    def _chunk(self, index: int, delta: Delta, reason: FinishReason | None = None) -> ChatChunk:
        choice = ChatChunkChoice(index=index, delta=delta, finish_reason=reason)
        return self._body([choice], self._head.no_usage)

    def _body(self, choices: list[ChatChunkChoice], usage: Usage | UnsetType | None) -> ChatChunk:
        head = self._head
        return ChatChunk(
            id=head.id,
            created=head.created,
            model=head.model,
            system_fingerprint=FINGERPRINT,
            choices=choices,
            usage=usage,
        )


class CompletionReply:
    """POST /v1/completions."""

    frames = ServerSentEvents()

    def __init__(self, head: Head) -> None:
        self._head = head

    def whole(self, rows: Sequence[Row]) -> Completion:
        choices = [
            TextChoice(text=row.text, index=i, finish_reason=reason_of(row.reason)) for i, row in enumerate(rows)
        ]
        return self._body(choices, self._head.usage(rows))

    def chunks(self, event: GenerationEvent) -> Sequence[Completion]:
        match event:
            case TextDelta(index=index, text=text) if text:
                choice = TextChoice(text=text, index=index)
            case Finished(index=index, reason=reason):
                choice = TextChoice(text="", index=index, finish_reason=reason_of(reason))
            case _:
                return []
        return [self._body([choice], self._head.no_usage)]

    def last(self, rows: Sequence[Row]) -> Sequence[Completion]:
        return [self._body([], self._head.usage(rows))] if self._head.usage_in_stream else []

    def _body(self, choices: list[TextChoice], usage: Usage | UnsetType | None) -> Completion:
        head = self._head
        return Completion(
            id=head.id,
            created=head.created,
            model=head.model,
            system_fingerprint=FINGERPRINT,
            choices=choices,
            usage=usage,
        )


def reason_of(reason: generation.FinishReason) -> FinishReason:
    """OpenAI has no word for an answer that was cancelled; cut short is what it is."""
    return "stop" if reason == "stop" else "length"
