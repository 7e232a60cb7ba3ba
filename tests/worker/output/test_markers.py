"""Which markers a model has, and where they lead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from squish.worker.output.markers import Span, Splitter, edges_of, overlap


def tokenizer(**fields: Any) -> Any:
    """mlx-lm's, of a model without any marker but for these."""
    none = {"has_thinking": False, "has_tool_calling": False, "response_transitions": {}, "structural_markers": ()}
    return SimpleNamespace(**none | fields)


THINKS = {"has_thinking": True, "think_start": "<t>", "think_end": "</t>"}
CALLS = {"has_tool_calling": True, "tool_call_start": "<c>", "tool_call_end": "</c>"}


def test_a_model_without_markers_has_no_edges() -> None:
    assert edges_of(tokenizer(), tools=True) == {}


def test_thoughts_are_told_from_the_answer() -> None:
    expected = {"normal": (("<t>", "reasoning"),), "reasoning": (("</t>", "normal"),)}
    assert edges_of(tokenizer(**THINKS), tools=True) == expected


@pytest.mark.parametrize("end", ["</c>", ""])
def test_a_call_can_come_after_the_answer_and_out_of_a_thought(end: str) -> None:
    calls = CALLS | {"tool_call_end": end}
    after = {"tool": ((end, "normal"),)} if end else {}
    assert edges_of(tokenizer(**calls), tools=True) == {"normal": (("<c>", "tool"),)} | after
    assert edges_of(tokenizer(**THINKS, **calls), tools=True) == {
        "normal": (("<t>", "reasoning"), ("<c>", "tool")), "reasoning": (("</t>", "normal"), ("<c>", "tool")),
    } | after  # fmt: skip


def test_where_nobody_wants_calls_they_are_text() -> None:
    assert edges_of(tokenizer(**CALLS), tools=False) == {}
    assert edges_of(tokenizer(tool_call_start="<c>"), tools=True) == {}, "nor where the model knows none"


def test_a_model_can_say_itself_what_its_markers_lead_to() -> None:
    own = {
        "normal": (("<a>", "reasoning"), ("<b>", "tool"), ("<x>", "elsewhere")),
        "reasoning": (("<e>", "normal"),),
        "elsewhere": (("<y>", "normal"),),
    }
    able = tokenizer(**CALLS, response_transitions=own)
    assert edges_of(able, tools=True) == {
        "normal": (("<a>", "reasoning"), ("<b>", "tool")), "reasoning": (("<e>", "normal"),),
        "tool": (("</c>", "normal"),),
    }, "its own start of a call takes the place of the usual one"  # fmt: skip
    assert edges_of(able, tools=False) == {"normal": (("<a>", "reasoning"),), "reasoning": (("<e>", "normal"),)}
    quiet = tokenizer(**CALLS, response_transitions={"normal": (("<a>", "reasoning"),)})
    assert edges_of(quiet, tools=True)["normal"] == (("<a>", "reasoning"), ("<c>", "tool"))


def test_markers_of_a_conversation_are_left_out_of_an_answer() -> None:
    assert edges_of(tokenizer(structural_markers=("<|a|>", "<|b|>")), tools=False) == {
        "normal": (("<|a|>", "normal"), ("<|b|>", "normal"))
    }


def test_spans_say_where_they_stand_and_what_was_held_back_comes_at_the_end() -> None:
    splitter = Splitter({"normal": (("<t>", "reasoning"), ("<tt>", "tool")), "reasoning": (("</t>", "normal"),)})
    found = [*splitter.feed("ab<"), *splitter.feed("t>c</"), *splitter.feed("t>d<t"), *splitter.flush()]
    assert found == [
        Span("normal", 0, "ab"), Span("normal", 2, "<t>", "reasoning"), Span("reasoning", 5, "c"),
        Span("reasoning", 6, "</t>", "normal"), Span("normal", 10, "d"), Span("normal", 11, "<t"),
    ]  # fmt: skip
    assert found[1].end == 5
    assert splitter.channel == "normal"


def test_of_two_markers_in_one_place_the_longer_one_counts() -> None:
    splitter = Splitter({"normal": (("<t", "reasoning"), ("<tt", "tool"))})
    assert [span.to for span in splitter.feed("<tt")] == ["tool"]


def test_how_much_of_a_text_may_still_become_a_word() -> None:
    assert [overlap(text, "abc") for text in ("xab", "xa", "x", "", "abc", "abca")] == [2, 1, 0, 0, 0, 1]
