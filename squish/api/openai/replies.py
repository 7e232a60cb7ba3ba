"""Generation events as OpenAI's answers and stream chunks. Pure: values in, Structs out. It knows no HTTP."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from squish import __version__, generation
from squish.api.dialect import Row
from squish.api.errors import Failure
from squish.api.openai import logprobs
from squish.api.openai.errors import ErrorBody, error_body
from squish.api.openai.responses import (
    AnswerMessage,
    AnswerTimings,
    CallDelta,
    CalledFunction,
    CalledTool,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatLogprobs,
    Completion,
    CompletionTokensDetails,
    CompletionUsage,
    Delta,
    FinishReason,
    FunctionDelta,
    PromptProgress,
    PromptTokensDetails,
    TextChoice,
)
from squish.api.replies.frames import ServerSentEvents
from squish.generation import Accepted, Finished, GenerationEvent, Prefill, ReasoningDelta, TextDelta, ToolCallDelta

FINGERPRINT = f"squish-{__version__}"


@dataclass(frozen=True, slots=True)
class Head:
    """What all parts of one reply have in common. n: rows per prompt."""

    id: str
    created: int
    model: str
    n: int
    usage_in_stream: bool
    timings_in_stream: bool = False

    @classmethod
    def new(cls, prefix: str, model: str, n: int, usage_in_stream: bool, timings_in_stream: bool = False) -> Head:
        id = f"{prefix}-{secrets.token_hex(12)}"
        return cls(id, int(time.time()), model, n, usage_in_stream, timings_in_stream)

    @property
    def no_usage(self) -> UnsetType | None:
        """What stands for the usage in the chunks before the one that carries it."""
        return None if self.usage_in_stream else UNSET

    def usage(self, rows: Sequence[Row]) -> CompletionUsage:
        """The sum over rows. A prompt that has n answers counts once."""
        prompts = [row.usage for row in rows[:: self.n]]
        prompt, completion = sum(u.prompt_tokens for u in prompts), sum(row.usage.completion_tokens for row in rows)
        cached = PromptTokensDetails(sum(u.cached_tokens for u in prompts))
        thought = CompletionTokensDetails(sum(row.usage.reasoning_tokens for row in rows))
        return CompletionUsage(prompt, completion, prompt + completion, cached, thought)

    def timings(self, rows: Sequence[Row]) -> AnswerTimings | UnsetType:
        """Guessed tokens are those of all rows, times those of the slowest."""
        guessed = sum(row.timings.draft_tokens for row in rows)
        accepted = sum(row.timings.accepted_tokens for row in rows)
        found = AnswerTimings(draft_n=guessed, draft_n_accepted=accepted) if guessed else AnswerTimings()
        if self.timings_in_stream:
            ttft, decode = (max(getattr(row.timings, each) for row in rows) for each in ("ttft", "decode"))
            found = replace(found, prompt_ms=round(ttft * 1000, 1), predicted_ms=round(decode * 1000, 1))
        return UNSET if found == AnswerTimings() else found


class ChatReply:
    """POST /v1/chat/completions. one_call: of several calls in an answer, the first is the answer."""

    frames = ServerSentEvents()

    def __init__(self, head: Head, *, one_call: bool = False) -> None:
        self._head = head
        self._one_call = one_call
        self._prompt: int | None = None  # tokens, where there is one row

    def whole(self, rows: Sequence[Row]) -> ChatCompletion:
        head = self._head
        return ChatCompletion(
            id=head.id,
            created=head.created,
            model=head.model,
            system_fingerprint=FINGERPRINT,
            choices=[self._choice(i, row) for i, row in enumerate(rows)],
            usage=head.usage(rows),
            timings=head.timings(rows),
        )

    def chunks(self, event: GenerationEvent) -> Sequence[ChatChunk]:
        match event:
            case Accepted(prompt_tokens=rows):
                begun = [self._chunk(i, Delta(role="assistant", content="")) for i in range(len(rows))]
                self._prompt = sum(rows) if len(rows) == 1 else None
                return begun + self._progress(0, self._prompt)
            case Prefill(done=done, total=total):
                return self._progress(done, total)
            case TextDelta(index=index, text=text, logprobs=tokens) if text or tokens:
                return [self._chunk(index, Delta(content=text), found=logprobs.of_chat(tokens))]
            case ReasoningDelta(index=index, text=text) if text:
                return [self._chunk(index, Delta(reasoning_content=text))]
            case ToolCallDelta(index=index, call_index=call) if call == 0 or not self._one_call:
                return [self._chunk(index, Delta(tool_calls=[_call_delta(event)]))]
            case Finished(index=index, reason=reason):
                return [self._chunk(index, Delta(), reason_of(reason))]
            case _:
                return []

    def last(self, rows: Sequence[Row]) -> Sequence[ChatChunk]:
        head = self._head
        return [self._body([], head.usage(rows), head.timings(rows))] if head.usage_in_stream else []

    def alive(self, event: GenerationEvent | None) -> Sequence[ChatChunk]:
        return []

    def failed(self, failure: Failure, request_id: str = "") -> Sequence[ErrorBody]:
        return [error_body(failure)]

    def _choice(self, index: int, row: Row) -> ChatChoice:
        calls = row.tool_calls[:1] if self._one_call else row.tool_calls
        message = AnswerMessage(
            content=row.text or (None if calls else ""),
            reasoning_content=row.reasoning or UNSET,
            tool_calls=[CalledTool(id=c.id, function=CalledFunction(c.name, c.arguments)) for c in calls] or UNSET,
        )
        return ChatChoice(
            index=index, message=message, finish_reason=reason_of(row.reason), logprobs=logprobs.of_chat(row.logprobs)
        )

    def _progress(self, done: int, to_do: int | None) -> list[ChatChunk]:
        """How far the prompt is, where the client wants to know and there is one answer to wait for."""
        if self._prompt is None or to_do is None or not self._head.timings_in_stream:
            return []
        cached = max(self._prompt - to_do, 0)
        progress = PromptProgress(self._prompt, cached, cached + done)
        return [replace(self._body([], self._head.no_usage), prompt_progress=progress)]

    def _chunk(
        self, index: int, delta: Delta, reason: FinishReason | None = None, found: ChatLogprobs | None = None
    ) -> ChatChunk:
        choice = ChatChunkChoice(index=index, delta=delta, finish_reason=reason, logprobs=found)
        return self._body([choice], self._head.no_usage)

    def _body(
        self,
        choices: list[ChatChunkChoice],
        usage: CompletionUsage | UnsetType | None,
        timings: AnswerTimings | UnsetType = UNSET,
    ) -> ChatChunk:
        head = self._head
        return ChatChunk(
            id=head.id,
            created=head.created,
            model=head.model,
            system_fingerprint=FINGERPRINT,
            choices=choices,
            usage=usage,
            timings=timings,
        )


class CompletionReply:
    """POST /v1/completions."""

    frames = ServerSentEvents()

    def __init__(self, head: Head) -> None:
        self._head = head
        self._sent: Counter[int] = Counter()  # characters of each row that the stream has sent

    def whole(self, rows: Sequence[Row]) -> Completion:
        choices = [self._choice(i, row) for i, row in enumerate(rows)]
        return self._body(choices, self._head.usage(rows), self._head.timings(rows))

    def chunks(self, event: GenerationEvent) -> Sequence[Completion]:
        match event:
            case TextDelta(index=index, text=text, logprobs=tokens) if text or tokens:
                found = logprobs.of_text(tokens, self._sent[index])
                self._sent[index] += len(text)
                choice = TextChoice(text=text, index=index, logprobs=found)
            case Finished(index=index, reason=reason):
                choice = TextChoice(text="", index=index, finish_reason=reason_of(reason))
            case _:
                return []
        return [self._body([choice], self._head.no_usage)]

    def last(self, rows: Sequence[Row]) -> Sequence[Completion]:
        head = self._head
        return [self._body([], head.usage(rows), head.timings(rows))] if head.usage_in_stream else []

    def alive(self, event: GenerationEvent | None) -> Sequence[Completion]:
        return []

    def failed(self, failure: Failure, request_id: str = "") -> Sequence[ErrorBody]:
        return [error_body(failure)]

    def _choice(self, index: int, row: Row) -> TextChoice:
        found = logprobs.of_text(row.logprobs, 0)
        return TextChoice(text=row.text, index=index, finish_reason=reason_of(row.reason), logprobs=found)

    def _body(
        self,
        choices: list[TextChoice],
        usage: CompletionUsage | UnsetType | None,
        timings: AnswerTimings | UnsetType = UNSET,
    ) -> Completion:
        head = self._head
        return Completion(
            id=head.id,
            created=head.created,
            model=head.model,
            system_fingerprint=FINGERPRINT,
            choices=choices,
            usage=usage,
            timings=timings,
        )


def _call_delta(event: ToolCallDelta) -> CallDelta:
    if event.name is None:
        return CallDelta(index=event.call_index, function=FunctionDelta(arguments=event.arguments))
    function = FunctionDelta(name=event.name, arguments=event.arguments)
    return CallDelta(index=event.call_index, id=event.id, type="function", function=function)


def reason_of(reason: generation.FinishReason) -> FinishReason:
    """OpenAI has no words for a cancelled answer and a full context; they count as cut short."""
    return "length" if reason == "cancelled" or reason == "context" else reason
