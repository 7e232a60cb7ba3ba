"""What becomes of requests, while they run and for a while after: the values behind the server screen.

A Trace follows one request by its events; a Log keeps the latest. No prompt and no answer is kept unless somebody has
switched that on. It knows no engine.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from squish.errors import SquishError
from squish.generation import (
    Accepted,
    Finished,
    FinishReason,
    GenerationEvent,
    Loading,
    Prefill,
    Preparing,
    Queued,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from squish.sessions import request_details
from squish.sessions.request_details import RequestDetails
from squish.sessions.request_texts import RequestTexts

KEPT = 100

RequestState = Literal["queued", "loading", "prefill", "writing", "done", "stopped", "failed"]
_ENDED: tuple[RequestState, ...] = ("done", "stopped", "failed")


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """A request at one moment. client: who asks, as the front door named it, empty for this program's own chat.

    completion_tokens count pieces of text until the engine's own figure is there. ttft in seconds from the
    prompt's arrival in the worker, without queue and load, None before the first token; tps: tokens per second of
    all its rows; seconds: since it began, until now or its end.
    """

    id: int
    client: str
    model: str
    rows: int
    state: RequestState
    prompt_tokens: int
    completion_tokens: int
    ttft: float | None
    tps: float
    seconds: float
    error: str | None
    details: RequestDetails = field(default_factory=RequestDetails)

    @property
    def running(self) -> bool:
        return self.state not in _ENDED


@dataclass(frozen=True, slots=True)
class Totals:
    """Requests that have ended, by how, and the tokens that were written, since the program began."""

    done: int = 0
    stopped: int = 0
    failed: int = 0
    completion_tokens: int = 0


class RequestFollower(Protocol):
    """Follows one request: gets its events, as its reader will get them, or the error that it ended with."""

    def see(self, event: GenerationEvent) -> None: ...

    def fail(self, error: SquishError) -> None: ...


class Traceable(Protocol):
    """What a trace takes from a request."""

    @property
    def client(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def rows(self) -> int: ...

    @property
    def account(self) -> str: ...

    @property
    def background(self) -> bool: ...


class Trace:
    """Follows one request. cancel: asks the engine to end it; clock gives seconds."""

    def __init__(
        self,
        id: int,
        request: Traceable,
        cancel: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        keeps_texts: bool = False,
    ) -> None:
        self.id = id
        self.texts = RequestTexts(request) if keeps_texts else None
        self._cancel: Callable[[], None] | None = cancel
        self._client, self._model, self._rows = request.client, request.model, request.rows
        self._key, self._background = request_details.key_name(request), request.background
        self._parameters = request_details.parameters(request)
        self._clock = clock
        self._began = self._since = clock()
        self._spent = defaultdict[RequestState, float](float)  # seconds in each state that is over
        self._arrived: float | None = None  # at the model
        self._first: float | None = None
        self._ttft: float | None = None
        self._last: float | None = None
        self._ended: float | None = None
        self._state: RequestState = "queued"
        self._prompt = self._pieces = self._completion = self._finished = 0
        self._cached = self._reasoning = self._guessed = self._accepted_tokens = 0
        self._load = 0.0
        self._with_queue = False
        self._decode: float | None = None
        self._reasons = list[FinishReason]()
        self._error: str | None = None

    @property
    def running(self) -> bool:
        return self._ended is None

    def cancel(self) -> None:
        """Ask for its end; one that has ended is not an error."""
        if self._cancel:
            self._cancel()

    def see(self, event: GenerationEvent) -> None:
        """Take in an event, as its reader will get it."""
        if self.texts:
            self.texts.see(event)
        match event:
            case TextDelta() | ReasoningDelta() | ToolCallDelta():
                self._last = self._clock()
                if self._first is None:
                    self._first = self._last
                    self._enter("writing")
                self._pieces += 1
            case Queued():
                self._enter("queued")
            case Loading():
                self._enter("loading")
            case Preparing():
                self._arrived = self._clock()
                self._enter("prefill")
            case Accepted(prompt_tokens=counts):
                self._prompt = sum(counts)
                self._arrived = self._clock() if self._arrived is None else self._arrived
                self._enter("prefill")
            case Prefill():
                self._enter("writing" if self._first is not None else "prefill")
            case Finished():
                self._row_finished(event)

    def _row_finished(self, event: Finished) -> None:
        """The engine's own figures, the same that the chat shows, take the place of those seen from here."""
        usage, timings = event.usage, event.timings
        if self._first is not None:
            self._ttft = timings.ttft if self._ttft is None else self._ttft
            self._decode = max(self._decode or 0.0, timings.decode)
        self._load = max(self._load, timings.load)
        self._with_queue |= timings.with_queue
        self._completion += usage.completion_tokens
        self._cached += usage.cached_tokens
        self._reasoning += usage.reasoning_tokens
        self._guessed += timings.draft_tokens
        self._accepted_tokens += timings.accepted_tokens
        self._finished += 1
        if event.reason not in self._reasons:
            self._reasons.append(event.reason)
        if self._finished == self._rows:
            self._end("stopped" if "cancelled" in self._reasons else "done")

    def fail(self, error: SquishError) -> None:
        """It was refused, or ended with an error."""
        if self.running:
            self._error = error.message
            self._end("failed")

    def status(self) -> RequestStatus:
        now = self._ended if self._ended is not None else self._clock()
        tokens = self._pieces if self.running or not self._finished else self._completion
        writing = (self._last or 0.0) - (self._first or 0.0)
        decode = writing if self.running or self._decode is None else self._decode
        return RequestStatus(
            id=self.id,
            client=self._client,
            model=self._model,
            rows=self._rows,
            state=self._state,
            prompt_tokens=self._prompt,
            completion_tokens=tokens,
            ttft=self._ttft if self._ttft is not None else self._seen_ttft(),
            tps=(tokens - self._rows) / decode if decode > 0 and tokens > self._rows else 0.0,
            seconds=now - self._began,
            error=self._error,
            details=self._details(writing),
        )

    def _details(self, writing: float) -> RequestDetails:
        """writing: seconds from the first token to the latest, as seen from here."""
        spent = self._spent.copy()
        if self.running:
            spent[self._state] += self._clock() - self._since
        seen = None if self._first is None else writing
        unseen = self._first is not None and self._arrived is None  # of a server elsewhere: when its queue was over
        return RequestDetails(
            key=self._key,
            background=self._background,
            queued=spent["queued"],
            loading=self._load or spent["loading"],
            decode=seen if self._decode is None else self._decode,
            cached_tokens=self._cached,
            reasoning_tokens=self._reasoning,
            guessed_tokens=self._guessed,
            accepted_tokens=self._accepted_tokens,
            reasons=tuple(self._reasons),
            parameters=self._parameters,
            with_queue=self._with_queue or unseen,
        )

    def _seen_ttft(self) -> float | None:
        return None if self._first is None else self._first - (self._began if self._arrived is None else self._arrived)

    def _enter(self, state: RequestState) -> None:
        now = self._clock()
        self._spent[self._state] += now - self._since
        self._state, self._since = state, now

    def _end(self, state: RequestState) -> None:
        self._enter(state)
        self._ended = self._since
        self._cancel = None  # it holds the request, and with it the prompt


class Log:
    """The requests that run, and the latest that have ended, the newest last."""

    def __init__(self) -> None:
        self._traces: list[Trace] = []
        self._next = 1
        self._dropped = Totals()  # those that are kept no longer
        self.keeps_texts = False

    def begin(self, request: Traceable, cancel: Callable[[], None]) -> Trace:
        """A trace for a request that is about to be admitted."""
        ended = [trace for trace in self._traces if not trace.running]
        if len(ended) > KEPT:
            self._dropped = _added(self._dropped, ended[0].status())
            self._traces.remove(ended[0])
        trace = Trace(self._next, request, cancel, keeps_texts=self.keeps_texts)
        self._next += 1
        self._traces.append(trace)
        return trace

    def keep_texts(self, wanted: bool) -> None:
        """Keep what is asked and answered from now on, or forget it all."""
        self.keeps_texts = wanted
        if not wanted:
            for trace in self._traces:
                trace.texts = None

    def texts(self, id: int) -> RequestTexts | None:
        """What a request asked and was answered, where that is kept."""
        return next((trace.texts for trace in self._traces if trace.id == id), None)

    def cancel(self, id: int) -> None:
        """Ask for the end of a request; one that has ended is not an error."""
        for trace in self._traces:
            if trace.id == id:
                trace.cancel()

    def snapshot(self) -> list[RequestStatus]:
        return [trace.status() for trace in self._traces]

    def totals(self) -> Totals:
        """Of all requests since the program began, those that are kept no longer among them."""
        totals = self._dropped
        for trace in self._traces:
            totals = _added(totals, trace.status())
        return totals


def _added(totals: Totals, request: RequestStatus) -> Totals:
    return Totals(
        done=totals.done + (request.state == "done"),
        stopped=totals.stopped + (request.state == "stopped"),
        failed=totals.failed + (request.state == "failed"),
        completion_tokens=totals.completion_tokens + request.completion_tokens,
    )
