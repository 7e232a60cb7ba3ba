"""Stop strings on text that arrives in pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from squish.worker.output import StopMatcher


@given(
    text=st.text(alphabet="abN", max_size=40),
    stops=st.lists(st.text(alphabet="abN", min_size=1, max_size=4), max_size=4),
    cuts=st.lists(st.integers(0, 40), max_size=8),
)
def test_however_text_is_cut_it_ends_before_the_first_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    matcher = StopMatcher(tuple(stops))
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    sent = ""
    for begin, end in pairwise(edges):
        sent += matcher.feed(text[begin:end])
        assert not any(stop in sent for stop in stops)
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    assert matcher.matched == bool(found)
    if found:
        assert sent == text[: len(sent)]
        assert min(found) <= len(sent) or sent == text[: min(found)]
        assert not any(stop in sent for stop in stops)
    else:
        assert sent + matcher.flush() == text


def test_no_part_of_a_stop_is_sent() -> None:
    matcher = StopMatcher(("</s>", "END"))
    assert [matcher.feed(piece) for piece in ("one <", "/", "p> E", "N", "D two")] == ["one ", "", "</p> ", "", ""]
    assert matcher.matched
