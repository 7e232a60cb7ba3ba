"""What a trace says of one request: its times, its phases and its figures, in the words of OpenTelemetry's conventions.

Values only: it imports nothing of OpenTelemetry. Nothing that a client or a model wrote gets here but the name of a
model; prompts, answers, stop strings and keys never do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from squish.api.fields.limits import MAX_INT
from squish.embeddings import EmbeddingRequest
from squish.errors import SquishError
from squish.generation import (
    Accepted,
    ChatPrompt,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Loading,
    Prefill,
    Preparing,
    Queued,
    ReasoningDelta,
    SamplingParams,
    TextDelta,
    ToolCallDelta,
)
from squish.text import clean

PhaseName = Literal["queue", "load", "prefill", "decode"]
Attribute = str | int | float | bool | list[str]

_LONGEST = 200


@dataclass(slots=True)
class Phase:
    """start and end: nanoseconds since 1970. end is None while it lasts."""

    name: PhaseName
    start: int
    end: int | None = None


@dataclass(slots=True)
class RequestSpan:
    """One request, from its first byte to its last. It is a RequestFollower of sessions.activity.

    name: replaced once it is known what is asked. parent: the headers traceparent and tracestate, as they came.
    serves: it came over HTTP. failure: the code of what went wrong; broken: on our side.
    clock: nanoseconds since 1970.
    """

    name: str
    parent: dict[str, str] = field(default_factory=dict)
    serves: bool = True
    attributes: dict[str, Attribute] = field(default_factory=dict)
    clock: Callable[[], int] = time.time_ns
    phases: list[Phase] = field(default_factory=list)
    failure: str | None = None
    broken: bool = False
    start: int = field(init=False)
    end: int = field(init=False, default=0)
    _rows: dict[int, Finished] = field(default_factory=dict)
    _rows_per_prompt: int = 1
    _makes_text: bool = True

    def __post_init__(self) -> None:
        self.start = self.clock()

    def asks(self, request: GenerationRequest | EmbeddingRequest, stream: bool = False) -> None:
        """What is wanted of a model. From here on it stands in the queue."""
        if isinstance(request, EmbeddingRequest):
            operation = "embeddings" if request.kind == "embedding" else "rerank"
            self._makes_text = False
            if request.dimensions is not None:
                self.attributes["gen_ai.embeddings.dimension.count"] = request.dimensions
        else:
            operation = "chat" if isinstance(request.prompts[0], ChatPrompt) else "text_completion"
            self._rows_per_prompt = request.sampling.n
            self.attributes |= _sampling(request.sampling) | {"gen_ai.request.stream": stream}
        model = shown(request.model)
        self.name = f"{operation} {model}"
        self.attributes |= {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "squish",
            "gen_ai.request.model": model,
        }
        self._enter("queue")

    def answers(self, model: str) -> None:
        """Which installed model it is."""
        self.attributes["gen_ai.response.model"] = shown(model)

    def see(self, event: GenerationEvent) -> None:
        """Take in what the engine says."""
        match event:
            case Queued():
                self._enter("queue")
            case Loading():
                self._enter("load")
            case Preparing() | Accepted():
                self._enter("prefill")
            case TextDelta() | ReasoningDelta() | ToolCallDelta():
                self._first()
                self._enter("decode")
            case Finished():
                self._rows[event.index] = event
                self.phases[-1].end = self.clock()
            case Prefill():
                pass

    def fail(self, error: SquishError) -> None:
        """The engine, or who admits requests to it, has this against it."""
        self.failed(error.code)

    def failed(self, code: str, *, broken: bool = False) -> None:
        """The first failure is the reason of those after it."""
        self.failure = self.failure or code
        self.broken = self.broken or broken

    def finish(self) -> None:
        """It is over: the phase that lasts ends, and the figures of its rows are added up."""
        self.end = self.clock()
        if self.phases and self.phases[-1].end is None:
            self.phases[-1].end = self.end
        rows = [self._rows[index] for index in sorted(self._rows)]
        if not rows:
            return
        prompts = [row.usage for row in rows if row.index % self._rows_per_prompt == 0]
        self.attributes["gen_ai.usage.input_tokens"] = sum(each.prompt_tokens for each in prompts)
        if self._makes_text:
            self.attributes |= {
                "gen_ai.usage.cache_read.input_tokens": sum(each.cached_tokens for each in prompts),
                "gen_ai.usage.output_tokens": sum(row.usage.completion_tokens for row in rows),
                "gen_ai.usage.reasoning.output_tokens": sum(row.usage.reasoning_tokens for row in rows),
                "gen_ai.response.finish_reasons": [row.reason for row in rows],
            }

    def _first(self) -> None:
        """Seconds to the first piece, from when it was asked for."""
        if "gen_ai.response.time_to_first_chunk" not in self.attributes and self.phases:
            waited = self.clock() - self.phases[0].start
            self.attributes["gen_ai.response.time_to_first_chunk"] = waited / 1e9

    def _enter(self, name: PhaseName) -> None:
        if self.phases and self.phases[-1].name == name:
            self.phases[-1].end = None  # another row goes on
            return
        now = self.clock()
        if self.phases:
            self.phases[-1].end = now
        self.phases.append(Phase(name, now))


def shown(text: str) -> str:
    """A name from outside, fit for whoever reads traces."""
    return clean(text).replace("\n", " ")[:_LONGEST]


def _sampling(params: SamplingParams) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        "gen_ai.output.type": "json" if params.response_format else "text",
    }
    if params.max_tokens < MAX_INT:  # which stands for no limit
        found["gen_ai.request.max_tokens"] = params.max_tokens
    if params.top_k:
        found["gen_ai.request.top_k"] = params.top_k
    if params.presence_penalty:
        found["gen_ai.request.presence_penalty"] = params.presence_penalty
    if params.frequency_penalty:
        found["gen_ai.request.frequency_penalty"] = params.frequency_penalty
    if params.seed is not None and params.seed < 2**63:  # an attribute has 64 bits, one of them for the sign
        found["gen_ai.request.seed"] = params.seed
    if params.n > 1:
        found["gen_ai.request.choice.count"] = params.n
    return found
