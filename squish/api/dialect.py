"""What a dialect of HTTP API has to bring: Structs, and pure functions between them and the values of generation.py.

A dialect decodes a body to an `Asked`: what to generate, and the `Reply` that says it in the dialect's shapes. Whatever
else it is asked for is a `Route`. Everything else (keys, admission, streams, clients that leave, the log) is the same
for all of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from squish.api.clients.keys import ApiKey
from squish.api.errors import Failure
from squish.api.operation import Operation
from squish.api.services import Services
from squish.api.telemetry.span import RequestSpan
from squish.generation import (
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    ReasoningDelta,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)

Value = TypeVar("Value")
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
    timings: Timings = field(default_factory=lambda: Timings(0.0, 0.0))
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
            case Finished(reason=reason, usage=usage, timings=timings, stop=stop):
                self.reason, self.usage, self.timings, self.stop = reason, usage, timings, stop

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


Failed = Callable[[Failure, str], Sequence[msgspec.Struct]]
"""What a stream says when it breaks off, given the request's id too."""


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

    def failed(self, failure: Failure, request_id: str) -> Sequence[msgspec.Struct]:
        """What a stream says when it breaks off; nothing follows."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, understood. rows_per_prompt: how many of the rows answer the same prompt.

    left_out: what of the request the answer does without, such as tools of an unknown type; for the log.
    told_in_stream: codes of failures that clients of a stream look for in the stream only, so it has them even where a
    status could still be sent.
    """

    generation: GenerationRequest
    reply: Reply
    stream: bool
    rows_per_prompt: int = 1
    left_out: tuple[str, ...] = ()
    told_in_stream: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WithStatus:
    """An answer with a status of its own. A text is sent as plain text, None as nothing."""

    body: msgspec.Struct | str | None = None
    status: int = 200


@dataclass(frozen=True, slots=True)
class Pieces:
    """An answer sent piece by piece, such as progress. failed: what is sent when it breaks off.

    No header is sent before the first item is there: what fails until then has a status.
    """

    frames: Frames
    items: AsyncGenerator[msgspec.Struct, None]
    failed: Failed


Outcome = Asked | Pieces | WithStatus | msgspec.Struct


class Call(Protocol):
    """A request as its route sees it. parts: of the path, decoded, by name. client: who asks, for people to read;
    account: who asks, for taking turns. key: the client's, where it needs one; in_background: it has one whose requests
    go behind others. span: where it is traced."""

    services: Services
    parts: Mapping[str, str]
    client: str
    account: str
    key: ApiKey | None
    span: RequestSpan | None

    @property
    def query(self) -> Mapping[str, str]: ...

    @property
    def in_background(self) -> bool: ...

    @property
    def owner(self) -> str | None:
        """Whose files, batches and kept responses the client's are: the name of its key, if it needs one."""

    def used(self, model: str, prompt: int) -> None:
        """Count tokens of a prompt that was answered without a generation."""

    def asking(self, model: str, *, counted: bool = True) -> AbstractAsyncContextManager[None]:
        """Services.asking for this client."""

    async def read(self, reader: Callable[[bytes], Value]) -> Value:
        """What a function makes of the body, for a large one in a thread. Raises what that raises, and what HTTP
        does."""

    def note(self, text: str) -> None:
        """Put this into the log's line about the request. No prompt, no key."""


@dataclass(frozen=True, slots=True)
class Route:
    """What else than an answer can be asked for, or an answer that is more than its body.

    path: in Sanic's notation, with `<name>` for a part and `<name:path>` for the rest. handle: gives what to send; what
    it raises (SquishError, Refused) is worded by the dialect.
    """

    method: str
    path: str
    handle: Callable[[Call], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """prefixes: of the paths whose failures it words. paths: those it has, as an error lists them.

    answers: paths to which bodies are posted that ask for an answer, and what such a body asks for (InvalidInput naming
    the field otherwise). error: a failure and the request's id as JSON; errors: the Struct that it gives. routes:
    everything else that it has. operations: all of it, for the OpenAPI document. id_header: has the request's id beside
    X-Request-Id. mark: a header that only its clients send; it decides at paths that no dialect has for itself, such
    as /v1/models.
    """

    name: str
    prefixes: tuple[str, ...]
    paths: tuple[str, ...]
    answers: Mapping[str, Callable[[bytes], Asked]]
    error: Callable[[Failure, str], msgspec.Struct]
    errors: type[msgspec.Struct]
    operations: tuple[Operation, ...] = ()
    routes: tuple[Route, ...] = ()
    id_header: str | None = None
    mark: str | None = None
