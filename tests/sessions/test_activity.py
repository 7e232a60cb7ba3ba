"""What is told of a request while it runs and afterwards."""

from __future__ import annotations

import msgspec
import pytest

from squish.embeddings import EmbeddingRequest
from squish.errors import QueueFull
from squish.generation import (
    LARGEST,
    Accepted,
    ChatPrompt,
    Finished,
    GenerationRequest,
    Loading,
    Message,
    Preparing,
    Queued,
    ResponseFormat,
    SamplingParams,
    TextDelta,
    TextPrompt,
    Timings,
    Tool,
    Usage,
)
from squish.sessions import request_details
from squish.sessions.activity import KEPT, Log, Totals, Trace
from squish.sessions.request_texts import MAX_TEXT, RequestTexts

DEFAULTS = SamplingParams()


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


@pytest.mark.parametrize("ends", [False, True])
def test_where_a_server_does_not_say_when_its_queue_was_over_it_counts_as_ttft_and_as_nothing_else(ends: bool) -> None:
    now = 0.0
    trace = Trace(1, asked(), lambda: None, clock=lambda: now)
    now = 20.0
    assert not trace.status().details.with_queue, "nothing has come yet"
    trace.see(TextDelta(0, "a"))
    if ends:
        trace.fail(QueueFull("It broke off."))
    assert (trace.status().ttft, trace.status().details.with_queue) == (20.0, True)


def test_tokenizing_and_compiling_a_grammar_count_as_ttft_and_not_as_queue_so_that_the_times_add_up() -> None:
    now = 0.0
    trace = Trace(1, asked(), lambda: None, clock=lambda: now)
    trace.see(Queued(1))
    now = 2.0
    trace.see(Preparing(grammar=True))
    now = 7.0
    assert (trace.status().state, trace.status().details.queued) == ("prefill", 2.0), "while the grammar is compiled"
    trace.see(Accepted((5,)))
    now = 8.0
    trace.see(TextDelta(0, "a"))
    status = trace.status()
    assert (status.ttft, status.details.queued) == (6.0, 2.0)
    now = 9.0
    trace.see(Finished(0, "stop", Usage(5, 2), Timings(6.0, 1.0)))
    status = trace.status()
    assert status.details.queued + (status.ttft or 0) + (status.details.decode or 0) == status.seconds == 9.0


def asked(sampling: SamplingParams = DEFAULTS, client: str = "", account: str = "") -> GenerationRequest:
    return GenerationRequest("m", (TextPrompt("secret"),), sampling, client=client, account=account)


def test_the_time_of_a_request_is_told_by_what_it_waited_for() -> None:
    now = 0.0
    trace = Trace(1, asked(), lambda: None, clock=lambda: now)
    trace.see(Queued(2))
    now = 3.0
    trace.see(Loading())
    now = 10.0
    assert (trace.status().details.queued, trace.status().details.loading) == (3.0, 7.0), "while it loads"
    trace.see(Accepted((5,)))
    now = 11.0
    trace.see(TextDelta(0, "a"))
    assert trace.status().details.decode == 0.0
    now = 13.0
    trace.see(TextDelta(0, "b"))
    assert trace.status().details.decode == 2.0
    trace.see(Finished(0, "length", Usage(5, 2), Timings(1.0, 1.9, load=6.9)))
    now = 99.0
    details = trace.status().details
    assert (details.queued, details.loading, details.decode, details.reasons) == (3.0, 6.9, 1.9, ("length",))
    assert (trace.status().ttft, trace.status().seconds) == (1.0, 13.0)


def test_the_speed_at_the_end_is_the_figure_of_the_engine_which_the_chat_shows_as_well() -> None:
    """Pieces that arrive together say nothing about how fast they were made."""
    now, timings = 0.0, Timings(0.1, 0.5)
    trace = Trace(1, asked(), lambda: None, clock=lambda: now)
    trace.see(Accepted((5,)))
    trace.see(TextDelta(0, "a"))
    now = 0.0001
    trace.see(TextDelta(0, "b"))
    trace.see(Finished(0, "stop", Usage(5, 8), timings))
    assert trace.status().tps == timings.decode_tps(8) == 14.0


def test_what_a_failed_request_had_written_is_counted() -> None:
    now = 0.0
    trace = Trace(1, asked(), lambda: None, clock=lambda: now)
    trace.see(Accepted((5,)))
    for _ in range(3):
        now += 0.5
        trace.see(TextDelta(0, "a"))
    trace.fail(QueueFull("gone"))
    assert (trace.status().state, trace.status().completion_tokens, trace.status().tps) == ("failed", 3, 2.0)


def test_a_request_that_never_began_has_waited_until_it_failed() -> None:
    now = 0.0
    trace = Trace(1, asked(), lambda: None, clock=lambda: now)
    trace.see(Queued(1))
    now = 4.0
    trace.fail(QueueFull("full"))
    now = 9.0
    assert (trace.status().details.queued, trace.status().details.decode) == (4.0, None)


def test_the_tokens_of_all_rows_are_added_up() -> None:
    trace = Trace(1, asked(SamplingParams(n=2)), lambda: None)
    trace.see(Accepted((9, 9)))
    trace.see(Finished(0, "stop", Usage(9, 4, 0, 3), Timings(0.1, 0.2, draft_tokens=6, accepted_tokens=2)))
    trace.see(Finished(1, "tool_calls", Usage(9, 5, 8, 1), Timings(0.1, 0.2, draft_tokens=1, accepted_tokens=1)))
    found = trace.status().details
    assert (found.cached_tokens, found.reasoning_tokens, found.guessed_tokens, found.accepted_tokens) == (8, 4, 7, 3)
    assert (trace.status().completion_tokens, found.reasons) == (9, ("stop", "tool_calls"))


def test_what_was_asked_for_is_told_without_any_text_of_it() -> None:
    wanted = ResponseFormat("json_schema", '{"secret": 1}')
    sampling = SamplingParams(
        64, 0.2, 1.0, seed=7, stop=("secret", "b"), response_format=wanted, logit_bias=((1, 2.0),)
    )
    told = {each.name: each.value for each in request_details.parameters(asked(sampling))}
    assert told == {
        "max_tokens": "64",
        "temperature": "0.2",
        "top_p": "1",
        "seed": "7",
        "stop": "2 strings",
        "logit_bias": "1 token",
        "response_format": "JSON schema, 13 characters",
    }
    tools = ChatPrompt((Message("user", "secret"),), thinking=False, effort="low", tools=(Tool("secret"),))
    both = GenerationRequest("m", (tools, tools), kv_bits=8)
    chat = {each.name: each.value for each in request_details.parameters(both)}
    assert {name: chat[name] for name in ("kv_bits", "prompts", "thinking", "effort", "tools", "response_format")} == {
        "kv_bits": "8",
        "prompts": "2",
        "thinking": "off",
        "effort": "low",
        "tools": "1, auto",
        "response_format": "text",
    }
    endless = request_details.parameters(asked(SamplingParams(LARGEST)))
    assert endless[0].value == "no limit"
    vectors = EmbeddingRequest("m", (TextPrompt("secret"),), dimensions=64, prompt_name="query")
    assert [each.value for each in request_details.parameters(vectors)] == ["1", "64", "query"]


@pytest.mark.parametrize(
    ("client", "account", "key"),
    [
        ("/v1/completions 10.0.0.7", "team-a", "team-a"),
        ("/v1/completions 10.0.0.7", "10.0.0.7", ""),
        ("/v1/completions ::1", "", ""),
        ("/v1/completions 2001:db8::5", "2001:db8::/64", ""),
        ("batch_1", "team-a", "team-a"),
        ("", "", ""),
    ],
)
def test_a_key_is_told_from_an_address(client: str, account: str, key: str) -> None:
    assert request_details.key_name(asked(client=client, account=account)) == key


def test_totals_count_those_that_are_no_longer_kept() -> None:
    log = Log()
    for _ in range(KEPT + 20):
        trace = log.begin(asked(), lambda: None)
        trace.see(Accepted((1,)))
        trace.see(Finished(0, "stop", Usage(1, 3), Timings(0.1, 0.2)))
    log.begin(asked(), lambda: None).see(Finished(0, "cancelled", Usage(1, 1), Timings(0.1, 0.2)))
    log.begin(asked(), lambda: None).fail(QueueFull("full"))
    log.begin(asked(), lambda: None)
    assert len(log.snapshot()) < KEPT + 20
    assert log.totals() == Totals(KEPT + 20, 1, 1, (KEPT + 20) * 3 + 1)


def test_texts_are_kept_only_while_that_is_switched_on() -> None:
    log, request = Log(), msgspec.structs.replace(asked(), prompts=(ChatPrompt((Message("user", "secret"),)),))
    before = log.begin(request, lambda: None)
    log.keep_texts(True)
    trace = log.begin(request, lambda: None)
    for each in (before, trace):
        each.see(TextDelta(0, "an "))
        each.see(TextDelta(0, "answer"))
    none, kept = (log.texts(each.id) for each in log.snapshot())
    assert none is None
    assert kept is not None and (kept.asked, kept.answered) == ("user: secret", "an answer")
    assert b"secret" not in msgspec.json.encode(log.snapshot()), "what is told of a request has no text of it"
    log.keep_texts(False)
    assert [log.texts(each.id) for each in log.snapshot()] == [None, None]


def test_no_more_of_a_text_is_kept_than_can_be_read() -> None:
    texts = RequestTexts(msgspec.structs.replace(asked(), prompts=(TextPrompt("x" * 100_000),)))
    for _ in range(3):
        texts.see(TextDelta(0, "y" * MAX_TEXT))
    assert len(texts.asked) < MAX_TEXT + 100 and texts.asked.startswith("the beginning is not kept")
    assert texts.answered == "y" * MAX_TEXT
