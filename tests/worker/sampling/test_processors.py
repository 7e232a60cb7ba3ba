"""What is done to a row's logits: the same by numpy and by MLX, and what goes wrong costs nobody else."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from squish.generation import SamplingParams
from squish.worker.sampling.processors import RowProcessor, edits_of

BOTH = pytest.mark.parametrize("use_numpy", [True, False])
SIZE = 6
INF = float("inf")


class Grammar:
    """Allows one token; notes what it is asked."""

    def __init__(self, only: int = 3) -> None:
        self.finished = self.thinks = self.broken = False
        self.taken: list[int] = []
        self._only = only

    def allowed(self, size: int) -> np.ndarray:
        return np.arange(size) == self._only

    def take(self, token: int) -> None:
        if self.broken:
            raise ValueError("no such token")
        self.taken.append(token)


def row(
    use_numpy: bool, grammar: Grammar | None = None, prompt: tuple[int, ...] = (), generated: tuple[int, ...] = (),
    eos: tuple[int, ...] = (), **fields: Any,
) -> RowProcessor:  # fmt: skip
    edits = edits_of(SamplingParams(**fields), list(prompt))
    held: Any = grammar
    return RowProcessor(edits, held, frozenset(eos), use_numpy, generated)


def after(processor: RowProcessor, *context: int, logits: tuple[float, ...] = (1, -1, 2, -2, 0, 3)) -> list[float]:
    result: Any = processor(mx.array(context), mx.array([logits], dtype=mx.float32)).tolist()
    assert processor.error is None, processor.error
    return [round(value, 4) for value in result[0]]


@BOTH
def test_a_bias_is_for_tokens_that_the_model_has(use_numpy: bool) -> None:
    biased = row(use_numpy, logit_bias=((0, 2.0), (5, -1.5), (SIZE, 9.0), (SIZE + 1, 9.0)))
    for _ in range(2):
        assert after(biased, 0) == [3, -1, 2, -2, 0, 1.5]
    assert not biased.ended


@BOTH
def test_what_was_seen_is_less_likely_also_where_it_is_unlikely(use_numpy: bool) -> None:
    assert after(row(use_numpy, prompt=(0, 1), repetition_penalty=2.0)) == [0.5, -2, 2, -2, 0, 3]
    answered = row(use_numpy, prompt=(0,), generated=(2, 3), repetition_penalty=2.0)
    assert after(answered, 0, 2, 3) == [0.5, -1, 1, -4, 0, 3]
    assert after(answered, 0, 2, 3, 5) == [0.5, -1, 1, -4, 0, 1.5]


@BOTH
def test_of_a_window_only_the_latest_tokens_count(use_numpy: bool) -> None:
    looks_back = row(use_numpy, prompt=(0, 1, 2), repetition_penalty=2.0, repetition_window=2)
    assert after(looks_back, 2) == [1, -2, 1, -2, 0, 3]
    assert after(looks_back, 2, 2) == [1, -1, 1, -2, 0, 3], "of two that are the same one is left"
    assert after(looks_back, 2, 2, 5) == [1, -1, 1, -2, 0, 1.5]
    assert after(looks_back, 2, 2, 5, 0) == [0.5, -1, 2, -2, 0, 1.5]
    young = row(use_numpy, prompt=(0,), repetition_penalty=2.0, repetition_window=2)
    after(young, 0)
    assert after(young, 0, 5) == [0.5, -1, 2, -2, 0, 1.5], "it was not full before"


@BOTH
def test_presence_counts_once_and_frequency_each_time(use_numpy: bool) -> None:
    often = row(use_numpy, prompt=(1,), presence_penalty=1.0, frequency_penalty=0.25)
    assert after(often, 0) == [1, -1, 2, -2, 0, 3], "what was generated before is none of it"
    assert after(often, 0, 2) == [1, -1, 0.75, -2, 0, 3]
    assert after(often, 0, 2, 2) == [1, -1, 0.5, -2, 0, 3]


@BOTH
def test_a_grammar_sees_every_token_that_was_generated_and_says_what_may_follow(use_numpy: bool) -> None:
    grammar = Grammar()
    held = row(use_numpy, grammar, generated=(4, 5), logit_bias=((3, 1.0),))
    assert after(held, 1, 4, 5) == [-INF, -INF, -INF, -1, -INF, -INF]
    after(held, 1, 4, 5, 3)
    assert grammar.taken == [4, 5, 3] and not held.ended


@BOTH
def test_a_format_that_is_filled_changes_nothing_any_more(use_numpy: bool) -> None:
    grammar = Grammar()
    held = row(use_numpy, grammar, logit_bias=((3, 1.0),))
    grammar.finished = True
    assert after(held, 1) == [1, -1, 2, -2, 0, 3]
    assert held.ended


@BOTH
def test_a_thought_is_free_but_has_no_end_of_the_answer_in_it(use_numpy: bool) -> None:
    grammar = Grammar()
    grammar.thinks = True
    assert after(row(use_numpy, grammar, eos=(0, 5, SIZE)), 1) == [-INF, -1, 2, -2, 0, -INF]
    assert after(row(use_numpy, Grammar(), eos=(3,)), 1)[3] == -2, "behind it the format decides"
    assert after(row(use_numpy, eos=(3,), logit_bias=((0, 0.0),)), 1)[3] == -2


@BOTH
def test_what_goes_wrong_ends_this_row_alone(use_numpy: bool) -> None:
    grammar = Grammar()
    held = row(use_numpy, grammar, generated=(4,))
    grammar.broken = True
    logits = mx.array([[1.0, 2.0]])
    assert held(mx.array([4]), logits) is logits
    assert isinstance(held.error, ValueError) and held.ended
    grammar.broken = False
    assert held(mx.array([4, 1]), logits) is logits
    assert grammar.taken == []


@BOTH
@pytest.mark.parametrize("kind", [mx.float16, mx.bfloat16])
def test_logits_keep_their_type(use_numpy: bool, kind: Any) -> None:
    logits = mx.array([[1.0, 2.0]], dtype=kind)
    assert row(use_numpy, logit_bias=((0, 2.0),))(mx.array([1]), logits).dtype == kind


def test_a_row_that_asks_for_none_of_it_has_no_edits() -> None:
    assert edits_of(SamplingParams(), [1]) is None
    for asked in ({"repetition_penalty": 1.1}, {"presence_penalty": -0.1}, {"frequency_penalty": 0.1}):
        found = edits_of(SamplingParams(**asked), [])  # type: ignore[arg-type]
        assert found is not None and found.follows
    biased = edits_of(SamplingParams(logit_bias=((1, 1.0),)), [])
    assert biased is not None and not biased.follows
