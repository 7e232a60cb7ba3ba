"""Generation events as a response: whole, or as the events of its stream. It keeps what the stream has said. Pure."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import msgspec

from squish.api.dialect import Row
from squish.api.errors import Failure
from squish.api.replies.frames import NamedEvents
from squish.api.responses import events as say
from squish.api.responses.answers import (
    IncompleteDetails,
    InputTokensDetails,
    OutputTokensDetails,
    Response,
    ResponseError,
    ResponseUsage,
)
from squish.api.responses.output import Output, ReplyOptions, turn
from squish.generation import (
    CUT,
    Accepted,
    GenerationEvent,
    Message,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)

_CODES = {
    "context_length_exceeded": "context_length_exceeded",
    "rate_limit_exceeded": "rate_limit_exceeded",
    "invalid_value": "invalid_prompt",
    "request_cancelled": "invalid_prompt",
}
"""Codes that clients of this API know. Codex asks again after every other one, and after these it does not."""

Keep = Callable[[Response, Message], None]


class ResponseReply:
    """begun: the response as it is before it says anything. keep: is given a complete one, and its turn."""

    frames = NamedEvents()

    def __init__(self, begun: Response, options: ReplyOptions, keep: Keep) -> None:
        self._begun = begun
        self._keep = keep
        self._has_begun = False
        self._number = itertools.count().__next__
        self._output = Output(options, self._number)

    def whole(self, rows: Sequence[Row]) -> Response:
        row = rows[0]
        self._output.add(ReasoningDelta(0, row.reasoning))
        self._output.add(TextDelta(0, row.text, tuple(row.logprobs)))
        for i, call in enumerate(row.tool_calls):
            self._output.add(ToolCallDelta(0, i, call.id, call.name, call.arguments))
        _, response = self._end(row)
        return response

    def chunks(self, event: GenerationEvent) -> Sequence[say.Event]:
        match event:
            case Accepted():
                return self._begin()
            case ReasoningDelta() | TextDelta() | ToolCallDelta():
                begun = self._begin()
                return [*begun, *self._output.add(event)]
            case _:
                return []

    def last(self, rows: Sequence[Row]) -> Sequence[say.Event]:
        begun = self._begin()
        events, response = self._end(rows[0])
        final = say.Completed if response.status == "completed" else say.Incomplete
        return [*begun, *events, final(sequence_number=self._number(), response=response)]

    def alive(self, event: GenerationEvent | None) -> Sequence[say.Event]:
        return self._begin() or [say.InProgress(sequence_number=self._number(), response=self._begun)]

    def failed(self, failure: Failure, request_id: str = "") -> Sequence[say.Event]:
        error = ResponseError(_CODES.get(failure.code, "server_error"), failure.message)
        begun = self._begin()
        response = msgspec.structs.replace(self._begun, status="failed", error=error, output=self._output.items)
        return [*begun, say.Failed(sequence_number=self._number(), response=response)]

    def _begin(self) -> list[say.Event]:
        """What a stream says first, once."""
        if self._has_begun:
            return []
        self._has_begun = True
        return [
            say.Created(sequence_number=self._number(), response=self._begun),
            say.InProgress(sequence_number=self._number(), response=self._begun),
        ]

    def _end(self, row: Row) -> tuple[list[say.Event], Response]:
        """What is said about the end of the answer, and the whole of it, which is kept."""
        cut = row.reason in CUT or row.reason == "cancelled"
        events = self._output.end("incomplete" if cut else "completed")
        response = msgspec.structs.replace(
            self._begun,
            status="incomplete" if cut else "completed",
            completed_at=None if cut else int(time.time()),
            incomplete_details=IncompleteDetails() if cut else None,
            output=self._output.items,
            usage=_usage(row.usage),
        )
        self._keep(response, turn(response.output))
        return events, response


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        usage.prompt_tokens,
        InputTokensDetails(usage.cached_tokens),
        usage.completion_tokens,
        OutputTokensDetails(usage.reasoning_tokens),
        usage.total_tokens,
    )
