"""Generation events as Anthropic's messages and stream events. Pure: values in, Structs out. It knows no HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from squish import generation as gen
from squish.api.anthropic.answers import (
    AnswerBlock,
    BlockDelta,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Ending,
    InputJsonDelta,
    Message,
    MessageDelta,
    MessageStart,
    MessageStop,
    OutputTokensDetails,
    Ping,
    SignatureDelta,
    StopReason,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolUseBlock,
    Usage,
)
from squish.api.anthropic.errors import ErrorEvent, error_body
from squish.api.dialect import Row
from squish.api.errors import Failure
from squish.api.replies.frames import NamedEvents


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """What of a request concerns its answer. one_call: of several calls, the first is the answer. omits_thoughts: their
    blocks are empty."""

    model: str
    one_call: bool = False
    omits_thoughts: bool = False
    id: str = field(default_factory=lambda: f"msg_{secrets.token_hex(12)}")


class MessagesReply:
    """POST /v1/messages. In a stream it remembers which block is open."""

    frames = NamedEvents()

    def __init__(self, options: ReplyOptions) -> None:
        self._options = options
        self._open: type[AnswerBlock] | None = None
        self._index = -1

    def whole(self, rows: Sequence[Row]) -> Message:
        [row] = rows
        options = self._options
        content: list[AnswerBlock] = []
        if row.reasoning:
            content.append(ThinkingBlock("" if options.omits_thoughts else row.reasoning))
        if row.text:
            content.append(TextBlock(row.text))
        for call in row.tool_calls[:1] if options.one_call else row.tool_calls:
            content.append(ToolUseBlock(call.id, call.name, msgspec.Raw(call.arguments.encode())))
        return Message(
            id=options.id,
            model=options.model,
            content=content,
            stop_reason=self._reason(row),
            stop_sequence=row.stop,
            usage=_usage(row.usage),
        )

    def chunks(self, event: gen.GenerationEvent) -> Sequence[msgspec.Struct]:
        match event:
            case gen.Accepted(prompt_tokens=(tokens, *_)):
                usage = _usage(gen.Usage(tokens, 0))
                return [MessageStart(Message(id=self._options.id, model=self._options.model, usage=usage))]
            case gen.TextDelta(text=text) if text:
                return [*self._in(TextBlock("")), self._delta(TextDelta(text))]
            case gen.ReasoningDelta(text=text) if text:
                begun = self._in(ThinkingBlock(""))
                return begun if self._options.omits_thoughts else [*begun, self._delta(ThinkingDelta(text))]
            case gen.ToolCallDelta(call_index=call) if call == 0 or not self._options.one_call:
                return self._call(event)
            case _:
                return []

    def last(self, rows: Sequence[Row]) -> Sequence[msgspec.Struct]:
        [row] = rows
        ending = Ending(self._reason(row), row.stop)
        return [*self._close(), MessageDelta(ending, _usage(row.usage)), MessageStop()]

    def alive(self, event: gen.GenerationEvent | None) -> Sequence[Ping]:
        return [Ping()]

    def failed(self, failure: Failure, request_id: str) -> Sequence[ErrorEvent]:
        return [error_body(failure, request_id)]

    def _call(self, event: gen.ToolCallDelta) -> list[msgspec.Struct]:
        """A call's name begins a block of its own; its arguments fill it."""
        events: list[msgspec.Struct] = []
        if event.name is not None:
            events += [*self._close(), *self._in(ToolUseBlock(event.id, event.name, msgspec.Raw(b"{}")))]
        return [*events, self._delta(InputJsonDelta(event.arguments))]

    def _in(self, block: AnswerBlock) -> list[msgspec.Struct]:
        """Begin this block, unless one of its kind is open."""
        if self._open is type(block):
            return []
        closed = self._close()
        self._open = type(block)
        self._index += 1
        return [*closed, ContentBlockStart(self._index, block)]

    def _close(self) -> list[msgspec.Struct]:
        """End the open block; a thought ends with its signature."""
        kind, self._open = self._open, None
        if kind is None:
            return []
        signature = [self._delta(SignatureDelta())] if kind is ThinkingBlock else []
        return [*signature, ContentBlockStop(self._index)]

    def _delta(self, delta: BlockDelta) -> ContentBlockDelta:
        return ContentBlockDelta(self._index, delta)

    def _reason(self, row: Row) -> StopReason:
        """Why it ended. The dialect has no word for a cancelled answer."""
        if row.stop is not None:
            return "stop_sequence"
        if row.reason == "tool_calls":
            return "tool_use"
        if row.reason == "stop":
            return "end_turn"
        return "model_context_window_exceeded" if row.reason == "context" else "max_tokens"


def _usage(usage: gen.Usage) -> Usage:
    """What was computed of the prompt, and what was cached: together they are all of it."""
    return Usage(
        input_tokens=usage.prompt_tokens - usage.cached_tokens,
        cache_read_input_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(usage.reasoning_tokens),
    )
