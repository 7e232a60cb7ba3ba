"""What a dialect of HTTP API has to bring: Structs, and pure functions between them and the values of generation.py.

A dialect decodes a body to an `Asked`: what to generate, and the `Reply` that says it in the dialect's shapes.
Everything else (keys, admission, streams, clients that leave, the log) is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from squish.api.errors import Failure
from squish.generation import (
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)

RowEvent = TextDelta | ReasoningDelta | ToolCallDelta | Finished


@dataclass(slots=True)
class Row:
    """One answer as it grows. tool_calls: in the order in which they were begun. stop: the string that ended it."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: FinishReason = "stop"
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    stop: str | None = None

    def add(self, event: RowEvent) -> None:
        match event:
            case TextDelta(text=text, logprobs=logprobs):
                self.text += text
                self.logprobs += logprobs
            case ReasoningDelta(text=text):
                self.reasoning += text
            case ToolCallDelta():
                self._add_call(event)
            case Finished(reason=reason, usage=usage, stop=stop):
                self.reason, self.usage, self.stop = reason, usage, stop

    def _add_call(self, event: ToolCallDelta) -> None:
        if event.call_index >= len(self.tool_calls):
            self.tool_calls.append(ToolCall(event.id, event.name or "", event.arguments))
            return
        call = self.tool_calls[event.call_index]
        self.tool_calls[event.call_index] = ToolCall(call.id, call.name, call.arguments + event.arguments)


class Frames(Protocol):
    """How a stream is cut into pieces: server-sent events, lines of JSON."""

    @property
    def content_type(self) -> str: ...

    @property
    def end(self) -> bytes:
        """The last piece of a stream that went well."""

    def data(self, value: msgspec.Struct) -> bytes: ...

    def comment(self, text: str) -> bytes:
        """What a client skips; empty where the format has no such thing."""


class Reply(Protocol):
    """One endpoint's way of saying things. It belongs to one request, so it may keep what a stream has said already."""

    @property
    def frames(self) -> Frames: ...

    def whole(self, rows: Sequence[Row]) -> msgspec.Struct:
        """The answer in one piece."""

    def chunks(self, event: GenerationEvent) -> Sequence[msgspec.Struct]:
        """What a stream says about an event; often nothing."""

    def last(self, rows: Sequence[Row]) -> Sequence[msgspec.Struct]:
        """What a stream says when every row has finished; often nothing."""

    def alive(self, event: GenerationEvent | None) -> Sequence[msgspec.Struct]:
        """What a stream says after a silence; with nothing, a comment is sent. event: the latest."""

    def failed(self, failure: Failure) -> Sequence[msgspec.Struct]:
        """What a stream says when it breaks off; nothing follows."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, understood. rows_per_prompt: how many of the rows answer the same prompt."""

    generation: GenerationRequest
    reply: Reply
    stream: bool
    rows_per_prompt: int = 1


@dataclass(frozen=True, slots=True)
class Dialect:
    """prefixes: of the paths whose failures it words. paths: those it has, as an error lists them.

    answers: paths to which bodies are posted that ask for an answer, and what such a body asks for (InvalidInput naming
    the field otherwise). error: a failure and the request's id as JSON. id_header: has that id beside X-Request-Id.
    """

    name: str
    prefixes: tuple[str, ...]
    paths: tuple[str, ...]
    answers: Mapping[str, Callable[[bytes], Asked]]
    error: Callable[[Failure, str], msgspec.Struct]
    id_header: str | None = None
