"""A row's text, which arrives in pieces: stop strings, channels, and the log-probabilities of its tokens."""

from __future__ import annotations

import codecs
import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from squish.generation import (
    Finished,
    FinishReason,
    GenerationEvent,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from squish.worker.output import row_output as output_module
from squish.worker.output.row_output import Reading, RowOutput, StopMatcher


@given(
    text=st.text(alphabet="abN", max_size=40),
    stops=st.lists(st.text(alphabet="abN", min_size=1, max_size=4), max_size=4),
    cuts=st.lists(st.integers(0, 40), max_size=8),
)
def test_however_text_is_cut_it_ends_before_the_stop_that_is_complete_first(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    matcher = StopMatcher(tuple(stops))
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    sent = ""
    for begin, end in pairwise(edges):
        sent += matcher.feed(text[begin:end])
        assert not any(stop in sent for stop in stops)
    found = [(at + len(stop), at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    if found:
        _, at, first = min(found)
        assert (sent, matcher.matched) == (text[:at], first)
    else:
        assert sent + matcher.flush() == text
        assert matcher.matched is None


def test_no_part_of_a_stop_is_sent() -> None:
    matcher = StopMatcher(("</s>", "END"))
    assert [matcher.feed(piece) for piece in ("one <", "/", "p> E", "N", "D two")] == ["one ", "", "</p> ", "", ""]
    assert matcher.matched


class Pieces:
    """A detokenizer whose tokens are numbers of byte strings; half a character waits for its other half."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""

    def add_token(self, token: int) -> None:
        self._text += self._decoder.decode(self._pieces[token])

    def finalize(self) -> None:
        self._text += self._decoder.decode(b"", final=True)

    @property
    def last_segment(self) -> str:
        text, self._text = self._text, ""
        return text


THINKING = Reading({"normal": (("<t>", "reasoning"),), "reasoning": (("</t>", "normal"),)})


def read(pieces: list[bytes], stops: tuple[str, ...], logprobs: bool) -> tuple[str, str, int]:
    """Answer, thoughts, and how many entries came with them, each delta with those of its own text."""
    output = RowOutput(0, Pieces(pieces), frozenset(), stops, 1, 0.0, THINKING, logprobs)
    events = []
    for token, piece in enumerate(pieces):
        entry = TokenLogprob(piece.decode(errors="replace"), piece, -1.0) if logprobs else None
        new, ended = output.feed(token, None, entry)
        events += new
        if ended:
            break
    else:
        events += output.finish("length")
    [finished] = [event for event in events if isinstance(event, Finished)]
    assert finished.stop is None or finished.stop in stops
    assert (finished.stop is not None) == (finished.reason == "stop")
    texts = [event for event in events if isinstance(event, TextDelta)]
    if logprobs:
        assert all(b"".join(e.bytes for e in event.logprobs) == event.text.encode() for event in texts)
    thoughts = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    return "".join(event.text for event in texts), thoughts, sum(len(event.logprobs) for event in texts)


@given(
    words=st.lists(st.sampled_from(["a", "é", "€", "<t>", "</t>", "<", "t>", "\n", "stop", "st", " "]), max_size=16),
    stops=st.lists(st.sampled_from(["stop", "é€", "aa", "t>"]), max_size=2),
    cuts=st.lists(st.integers(0, 60), max_size=20),
)
@example(words=["a", "<t>", "</t>", "a", "<t>", "</t>", "a"], stops=[], cuts=[])
def test_however_a_text_is_cut_into_tokens_it_reads_the_same(
    words: list[str], stops: list[str], cuts: list[int]
) -> None:
    data = "".join(words).encode()
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[begin:end] for begin, end in pairwise(edges)]
    whole = read([data] if data else [], tuple(stops), False)
    cut = read(pieces, tuple(stops), False)
    with_logprobs = read(pieces, tuple(stops), True)
    assert cut[:2] == with_logprobs[:2]
    assert (whole[0], whole[1]) == (cut[0], cut[1])
    marks = data.count(b"<t>") + data.count(b"</t>")
    assert with_logprobs[2] <= len(pieces) + marks, "a mark may cut a token in two"


CALLING = Reading(
    {
        "normal": (("<t>", "reasoning"), ("<c>", "tool")),
        "reasoning": (("</t>", "normal"), ("<c>", "tool")),
        "tool": (("</c>", "normal"),),
    },
    parser=lambda text, tools: json.loads(text),
)
ENDLESS = Reading({"normal": (("<c>", "tool"),)}, parser=CALLING.parser)
CALL = '{"name": "now", "arguments": {}}'


class Row:
    """A row whose tokens are the given texts; the end of text is one more. events: all so far."""

    def __init__(
        self, *pieces: str, stops: tuple[str, ...] = (), reading: Reading | None = None, index: int = 0
    ) -> None:
        self.count = len(pieces)
        made: Any = Pieces([each.encode() for each in pieces])
        self.output = RowOutput(index, made, frozenset({self.count}), stops, 5, 100.0, reading)
        self.events: list[GenerationEvent] = []

    def feed(self, last: FinishReason | None = None) -> Row:
        """All tokens; with `last` the final one ends the row, and "stop" is a token of its own."""
        tokens = [*range(self.count), *([self.count] if last == "stop" else [])]
        for token in tokens:
            events, ended = self.output.feed(token, last if token == tokens[-1] else None)
            self.events += events
            if ended:
                break
        return self

    def finish(self, reason: FinishReason) -> Row:
        self.events += self.output.finish(reason)
        return self

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def thoughts(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, ReasoningDelta))

    @property
    def calls(self) -> list[tuple[int, str | None, str]]:
        return [(e.call_index, e.name, e.arguments) for e in self.events if isinstance(e, ToolCallDelta)]

    @property
    def end(self) -> Finished:
        [found] = [event for event in self.events if isinstance(event, Finished)]
        assert found is self.events[-1]
        return found


def test_a_row_counts_its_tokens_and_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("a", "b", "c", index=3)
    row.output.cached_tokens = 4
    clock = iter([103.0, 110.0])
    monkeypatch.setattr(output_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    row.feed("stop")
    assert row.text == "abc"
    assert row.output.tokens == [0, 1, 2, 3]
    assert row.end.usage == Usage(5, 4, 4, 0)
    assert (row.end.timings.ttft, row.end.timings.decode) == (3.0, 7.0)
    assert {getattr(event, "index", None) for event in row.events} == {3}


def test_a_row_that_ends_before_its_first_token_has_only_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([107.0])
    monkeypatch.setattr(output_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    row = Row().finish("cancelled")
    assert row.events == [row.end]
    assert (row.end.reason, row.end.timings.ttft, row.end.timings.decode) == ("cancelled", 7.0, 0.0)


def test_the_token_that_ends_an_answer_is_not_seen() -> None:
    assert (Row("a").feed("stop").text, Row("a").feed("length").text) == ("a", "a")
    assert Row("a").feed("length").end.usage == Usage(5, 1, 0, 0)


def test_half_a_character_comes_out_when_nothing_follows() -> None:
    made: Any = Pieces([b"a", "é".encode()[:1]])
    output = RowOutput(0, made, frozenset(), (), 1, 0.0)
    events = [*output.feed(0, None)[0], *output.feed(1, None)[0], *output.finish("length")]
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["a", "\ufffd"]


@pytest.mark.parametrize(
    ("pieces", "last", "text", "reason", "stop"),
    [
        (["a", "END", "b"], None, "a", "stop", "END"),
        (["a", "END"], "length", "a", "stop", "END"),
        (["a", "EN"], "length", "aEN", "length", None),
        (["a", "EN"], "stop", "aEN", "stop", None),
    ],
)
def test_a_stop_string_is_the_reason(
    pieces: list[str], last: FinishReason | None, text: str, reason: FinishReason, stop: str | None
) -> None:
    row = Row(*pieces, stops=("END",)).feed(last)
    assert (row.text, row.end.reason, row.end.stop) == (text, reason, stop)


@pytest.mark.parametrize(("reason", "said"), [("length", "stop"), ("cancelled", "cancelled")])
def test_a_stop_string_that_only_the_end_completes(reason: FinishReason, said: FinishReason) -> None:
    """Its last character comes out of the detokenizer when that is told that nothing follows."""
    made: Any = Pieces([b"a", b"\xc3"])
    output = RowOutput(0, made, frozenset(), ("\ufffd",), 1, 0.0)
    output.feed(0, None)
    output.feed(1, None)
    [end] = output.finish(reason)
    assert isinstance(end, Finished)
    assert (end.reason, end.stop) == (said, "\ufffd")


def test_line_breaks_after_a_marker_belong_to_it_and_others_do_not() -> None:
    row = Row("\nA\n", "<t>", "\n", "\nB\n", "</t>", "\n", "\nC\n", reading=CALLING).feed("stop")
    assert (row.text, row.thoughts) == ("\nA\nC\n", "B\n")
    assert row.end.usage.reasoning_tokens == 3, "the marker that ends a thought is one of it"
    assert Row("<t>", "</t>", "\n?", reading=CALLING).feed("stop").text == "?"
    begun = Reading(CALLING.edges, "reasoning")
    row = Row("\nB\n", "</t>", "C", reading=begun).feed("stop")
    assert (row.text, row.thoughts, row.end.usage.reasoning_tokens) == ("C", "B\n", 2)


def test_calls_are_numbered_and_are_the_reason() -> None:
    row = Row("A", f"<c>{CALL}</c>", "\n", f"<c>{CALL}</c>", "\nB", reading=CALLING, index=2).feed("stop")
    assert row.text == "AB"
    assert row.calls == [(0, "now", ""), (0, None, "{}"), (1, "now", ""), (1, None, "{}")]
    ids = [event.id for event in row.events if isinstance(event, ToolCallDelta)]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert row.end.reason == "tool_calls"
    assert {getattr(event, "index", None) for event in row.events} == {2}


def test_several_calls_between_two_markers_are_several() -> None:
    row = Row(f"<c>[{CALL}, {CALL}]</c>", reading=CALLING).feed("stop")
    assert [each[0] for each in row.calls] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("last", "stops", "reason"),
    [("length", (), "length"), ("stop", (), "tool_calls"), ("stop", ("B",), "stop"), ("cancelled", (), "cancelled")],
)
def test_with_calls_only_an_end_of_the_model_s_own_has_them_for_its_reason(
    last: FinishReason, stops: tuple[str, ...], reason: FinishReason
) -> None:
    row = Row(f"<c>{CALL}</c>", "B", reading=CALLING, stops=stops).feed(last)
    assert (len(row.calls), row.end.reason) == (2, reason)


def test_a_call_that_cannot_be_read_is_the_text_that_it_is() -> None:
    row = Row("A", "<c>", "junk", "</c>", "\nB", reading=CALLING).feed("stop")
    assert (row.text, row.calls, row.end.reason) == ("A<c>junk</c>\nB", [], "stop")
    unread = Reading(CALLING.edges)
    assert Row(f"<c>{CALL}</c>", reading=unread).feed("stop").text == f"<c>{CALL}</c>"


@pytest.mark.parametrize(
    ("reading", "last", "whole"),
    [
        (CALLING, "stop", True),
        (CALLING, "length", False),
        (CALLING, "cancelled", False),
        (ENDLESS, "stop", True),
        (ENDLESS, "length", True),
        (ENDLESS, "cancelled", False),
    ],
)
def test_a_call_that_no_marker_ends_may_be_a_whole_one(reading: Reading, last: FinishReason, whole: bool) -> None:
    row = Row("<c>", CALL, reading=reading).feed(last)
    assert len(row.calls) == (2 if whole else 0)
    assert row.text == ("" if whole else f"<c>{CALL}")


def test_a_stop_string_neither_ends_a_thought_nor_a_call() -> None:
    call = '{"name": "END", "arguments": {}}'
    row = Row("<t>END</t>", f"<c>{call}</c>", "A", "END", "B", stops=("END",), reading=CALLING).feed("stop")
    assert (row.thoughts, row.calls[0][1], row.text, row.end.stop) == ("END", "END", "A", "END")


def test_no_marker_follows_a_stop_string() -> None:
    row = Row("A END <t>no</t>", "no", stops=("END",), reading=CALLING).feed("stop")
    assert (row.text, row.thoughts, row.end.reason) == ("A ", "", "stop")
    assert row.output.tokens == [0]


def test_text_before_a_marker_waits_for_nothing() -> None:
    row = Row("A EN", "<t>", "D", reading=CALLING, stops=("END",)).feed()
    assert row.text == "A EN"


def test_a_matcher_without_stops_holds_nothing_and_one_that_matched_says_nothing_more() -> None:
    assert StopMatcher(()).feed("abc") == "abc"
    matcher = StopMatcher(("b", "ab"))
    assert (matcher.feed("xab"), matcher.matched) == ("x", "ab")
    assert (matcher.feed("more"), matcher.flush()) == ("", "")
    matcher = StopMatcher(("abcd", "bc"))
    assert (matcher.feed("abcd"), matcher.matched) == ("a", "bc")
    matcher = StopMatcher(("END",))
    assert (matcher.feed("aEN"), matcher.flush(), matcher.flush()) == ("a", "EN", "")
    assert (matcher.feed("D"), matcher.matched) == ("D", None)


def entries(*pieces: str, stops: tuple[str, ...] = (), reading: Reading | None = None) -> list[tuple[str, list[str]]]:
    """Each text that left, and the tokens that came with it."""
    made: Any = Pieces([each.encode() for each in pieces])
    output = RowOutput(0, made, frozenset({len(pieces)}), stops, 1, 0.0, reading, logprobs=True)
    events: list[GenerationEvent] = []
    for token, piece in enumerate([*pieces, "</s>"]):
        new, ended = output.feed(
            token, "stop" if token == len(pieces) else None, TokenLogprob(piece, piece.encode(), -1.0)
        )
        events += new
        if ended:
            break
    return [(event.text, [e.token for e in event.logprobs]) for event in events if isinstance(event, TextDelta)]


def test_an_entry_without_a_list_of_them_and_a_list_without_an_entry_harm_nobody() -> None:
    for logprobs, entry in ((False, TokenLogprob("a", b"a", -1.0)), (True, None)):
        made: Any = Pieces([b"a"])
        output = RowOutput(0, made, frozenset(), (), 1, 0.0, None, logprobs)
        events = [*output.feed(0, None, entry)[0], *output.finish("length")]
        assert [event.text for event in events if isinstance(event, TextDelta)] == ["a"]


def test_log_probabilities_leave_with_the_text_of_their_tokens() -> None:
    assert entries("a", "bc", "d") == [("a", ["a"]), ("bc", ["bc"]), ("d", ["d"])]
    assert entries("aE", "N", "Dx", stops=("END",)) == [("a", ["a"])]
    held = entries("aE", "N", "ix", stops=("END",))
    assert ("".join(text for text, _ in held), [token for _, tokens in held for token in tokens]) == (
        "aENix",
        ["aE", "N", "ix"],
    )
    assert entries("a", "<t>", "no", "</t>", "b", reading=CALLING) == [("a", ["a"]), ("b", ["b"])]
    assert entries("a", "<c>", "x", "</c>", "b", reading=CALLING) == [
        ("a", ["a"]),
        ("<c>x</c>", ["<c>", "x", "</c>"]),
        ("b", ["b"]),
    ]


def test_timings_say_what_was_guessed_and_how_much_of_it_was_right() -> None:
    output = RowOutput(0, Pieces([b"a"]), frozenset(), (), 1, 0.0)
    output.guessed(4, 3)
    output.guessed(2, 0)
    [*_, end] = output.finish("length")
    assert isinstance(end, Finished)
    assert (end.timings.draft_tokens, end.timings.accepted_tokens, end.timings.load) == (6, 3, 0.0)
