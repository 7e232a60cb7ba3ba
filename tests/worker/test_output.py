"""A row's text, which arrives in pieces: stop strings, channels, and the log-probabilities of its tokens."""

from __future__ import annotations

import codecs
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from squish.generation import Finished, ReasoningDelta, TextDelta, TokenLogprob
from squish.worker.output import Reading, RowOutput, StopMatcher


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
