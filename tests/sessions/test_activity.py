"""What is told of a request while it runs and afterwards."""

from __future__ import annotations

import pytest

from squish.generation import (
    Accepted,
    ChatPrompt,
    Finished,
    GenerationRequest,
    Loading,
    Message,
    Queued,
    SamplingParams,
    TextDelta,
    Timings,
    Usage,
)
from squish.sessions.activity import Trace


def test_the_time_to_the_first_token_counts_neither_the_line_nor_the_load() -> None:
    now = 0.0
    request = GenerationRequest("m", (ChatPrompt((Message("user", "hi"),)),), SamplingParams())
    trace = Trace(1, request, lambda: None, clock=lambda: now)
    trace.see(Queued(1))
    trace.see(Loading())
    now = 18.0
    trace.see(Accepted((5,)))
    now = 18.7
    trace.see(TextDelta(0, "a"))
    assert trace.status().ttft == pytest.approx(0.7)
    trace.see(Finished(0, "stop", Usage(5, 1), Timings(0.65, 0.0)))
    assert trace.status().ttft == 0.65, "the figure of the engine, which the chat shows as well"
    assert trace.status().seconds == pytest.approx(18.7)
