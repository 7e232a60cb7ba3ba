"""Guessed tokens in OpenAI's answers and in the figures: where there are some, and not a word where there are none."""

from __future__ import annotations

import msgspec
import pytest

from squish.api.dialect import Row
from squish.api.metrics import Metrics
from squish.api.openai.replies import ChatReply, CompletionReply, Head
from squish.commands.answers.answering import Answered
from squish.commands.answers.repl import to_json
from squish.generation import Accepted, Finished, Prefill, Timings, Usage
from squish.tui.chat.answer_state import AnswerState
from squish.tui.widgets.chat.turns import _footer

FINISHED = Finished(0, "stop", Usage(5, 90), Timings(0.3, 2.0, 0.0, 40, 31))
PLAIN = Finished(0, "stop", Usage(5, 90), Timings(0.3, 2.0))


def row(finished: Finished) -> Row:
    made = Row()
    made.add(finished)
    return made


@pytest.mark.parametrize("kind", [ChatReply, CompletionReply])
def test_openais_answers_name_them_as_llama_cpp_does(kind: type[ChatReply | CompletionReply]) -> None:
    reply = kind(Head.new("x", "m", 1, usage_in_stream=True))
    rows = [row(FINISHED), row(FINISHED), row(PLAIN)]
    [last] = reply.last(rows)
    for said in (reply.whole(rows), last):
        assert msgspec.to_builtins(said)["timings"] == {"draft_n": 80, "draft_n_accepted": 62}
    [last] = reply.last([row(PLAIN)])
    for said in (reply.whole([row(PLAIN)]), last, *reply.chunks(FINISHED)):
        assert "timings" not in msgspec.to_builtins(said)


@pytest.mark.parametrize("kind", [ChatReply, CompletionReply])
def test_a_stream_that_asks_for_timings_gets_those_of_the_slowest_row(kind: type[ChatReply | CompletionReply]) -> None:
    reply = kind(Head.new("x", "m", 1, usage_in_stream=True, timings_in_stream=True))
    [last] = reply.last([row(PLAIN), row(Finished(0, "stop", Usage(5, 9), Timings(0.25, 3.0, 7.0)))])
    assert msgspec.to_builtins(last)["timings"] == {"prompt_ms": 300.0, "predicted_ms": 3000.0}


def test_how_far_the_prompt_is_comes_only_where_it_was_asked_for_and_one_answer_is_awaited() -> None:
    events = (Accepted((9,)), Prefill(0, 2, 6))
    asked = ChatReply(Head.new("x", "m", 1, usage_in_stream=True, timings_in_stream=True))
    chunks = [msgspec.to_builtins(chunk) for event in events for chunk in asked.chunks(event)]
    assert [(len(each["choices"]), each.get("prompt_progress")) for each in chunks] == [
        (1, None),
        (0, {"total": 9, "cache": 0, "processed": 0}),
        (0, {"total": 9, "cache": 3, "processed": 5}),
    ]
    plain = ChatReply(Head.new("x", "m", 1, usage_in_stream=True))
    assert [len(plain.chunks(event)) for event in events] == [1, 0]
    two = ChatReply(Head.new("x", "m", 2, usage_in_stream=True, timings_in_stream=True))
    assert [len(two.chunks(event)) for event in (Accepted((9, 9)), Prefill(0, 4, 9))] == [2, 0]


def test_metrics_count_them() -> None:
    class Nothing:
        def status(self) -> list[None]:
            return []

    metrics = Metrics(Nothing())  # type: ignore[arg-type]
    metrics.finished("m", FINISHED, first_of_prompt=True)
    metrics.finished("m", PLAIN, first_of_prompt=True)
    text = metrics.text().decode()
    assert 'squish_draft_tokens_total{model="m"} 40.0' in text
    assert 'squish_accepted_draft_tokens_total{model="m"} 31.0' in text


def test_people_and_scripts_see_how_many_were_right() -> None:
    answer, plain = AnswerState(lambda: 0.0), AnswerState(lambda: 0.0)
    answer.apply(FINISHED)
    plain.apply(PLAIN)
    assert _footer(answer) == "90 tok · 44.5 tok/s · TTFT 0.30 s · 31/40 drafts accepted"
    assert "drafts" not in _footer(plain)
    assert Answered("", FINISHED).summary.endswith(" · 31/40 drafts accepted")
    timings = to_json("m", Answered("", FINISHED))["timings"]
    assert isinstance(timings, dict)
    assert (timings["draft_tokens"], timings["accepted_tokens"]) == (40, 31)
