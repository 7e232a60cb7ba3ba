"""What is guessed, how much, and that what is drawn keeps the model's own distribution; without a model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squish.worker.speculation.budget import LENGTHS, Budget
from squish.worker.speculation.lookup import GRAM, Lookup
from squish.worker.speculation.verify import drawn


def guess(tokens: list[int], length: int = 4) -> list[int]:
    text = Lookup()
    text.add(tokens)
    return text.continuation(length)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3], [4, 5, 6, 7]),
        ([1, 2, 3, 4, 5, 6, 7, 9, 1, 2], []),
        ([1, 2, 3, 4, 4, 4, 4, 8, 1, 2, 3, 5, 5, 5, 5, 8, 1, 2, 3], [5, 5, 5, 5]),
        ([7, 1, 2, 3, 4, 4, 4, 4, 8, 1, 2, 3, 5, 5, 5, 5, 7, 1, 2, 3], [4, 4, 4, 4]),
        ([1, 2, 3, 7, 1, 9, 3, 8, 1, 2, 3], [7, 1, 9, 3]),
        ([9, 1, 2, 1, 2, 1, 2], [1, 2, 1, 2]),
        ([5, 5, 5, 5], [5, 5, 5, 5]),
        ([5, 5, 5], []),
        ([], []),
    ],
    ids=[
        "again",
        "too short",
        "the latest",
        "the likest",
        "the same three",
        "a loop",
        "one token",
        "nothing before",
        "empty",
    ],
)
def test_what_stood_before_is_guessed(tokens: list[int], expected: list[int]) -> None:
    assert guess(tokens) == expected


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 9), st.integers(0, 60))
def test_a_guess_is_what_followed_the_same_tokens(tokens: list[int], length: int, cut: int) -> None:
    text = Lookup()
    for part in (tokens[:cut], tokens[cut:]):
        text.add(part)
    guessed = text.continuation(length)
    ends = [at for at in range(GRAM, len(tokens)) if tokens[at - GRAM : at] == tokens[-GRAM:]]
    assert bool(guessed) == bool(ends)
    assert not guessed or (len(guessed) == length and guessed[0] in {tokens[at] for at in ends})


def test_a_guess_can_be_of_one_token_and_a_text_begins_empty() -> None:
    assert guess([1, 2, 3, 4, 1, 2, 3], 1) == [4]
    assert guess([1, 2, 3, 4, 1, 2, 3], 0) == []
    assert len(Lookup()) == 0


def test_a_long_text_is_searched_whole() -> None:
    text = list(range(5000))
    assert guess([*text, 3, 4, 5], 3) == [6, 7, 8]


@pytest.mark.parametrize("again", [[], [1, 2]], ids=["new", "two that are not new"])
def test_what_is_new_is_not_searched_for(again: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squish.worker.speculation.lookup._continued", lambda *_: pytest.fail("a search"))
    text = Lookup()
    text.add([*range(5000), *again])
    for token in range(9000, 9100):
        assert text.continuation(3) == []
        text.add([token])


def test_guesses_that_hold_get_longer() -> None:
    budget = Budget()
    for length in (*LENGTHS, LENGTHS[-1]):
        assert budget.length == length
        budget.judged(length, length)
    budget.judged(LENGTHS[2], 2)
    assert budget.length == LENGTHS[1]
    budget.judged(LENGTHS[1], 0)
    assert budget.length == LENGTHS[0]


def test_guesses_get_longer_one_after_the_other_however_much_credit_there_is() -> None:
    budget = Budget()
    budget.wrote(10_000)
    for length in LENGTHS:
        assert budget.length == length
        budget.judged(length, length)


def test_guesses_that_fail_stop_and_are_tried_again_later() -> None:
    budget = Budget()
    tried = 0
    while budget.length:
        assert budget.length == 1
        budget.judged(1, 0)
        tried += 1
    assert tried == 2
    lengths = []
    for _ in range(16):
        budget.wrote(1)
        lengths.append(budget.length)
    assert lengths == [0] * 15 + [1]


def test_right_tokens_earn_two_and_wrong_ones_cost_one() -> None:
    budget = Budget()
    budget.judged(1, 0)
    budget.judged(1, 1)
    assert budget.length == 3, "which takes exactly what there is"
    budget.judged(3, 1)
    assert budget.length == 3
    budget.judged(3, 0)
    assert budget.length == 0
    budget.judged(1, 1)
    assert budget.length == 1, "right, but it earns no longer guesses yet"
    budget.judged(1, 1)
    assert budget.length == 3
    budget.judged(3, 3)
    assert budget.length == 7


def test_however_long_an_answer_is_it_saves_credit_for_twelve() -> None:
    budget, tried = Budget(), 0
    budget.wrote(10_000)
    while budget.length:
        budget.judged(1, 0)
        tried += 1
    assert tried == 12


@given(st.lists(st.integers(0, 7), max_size=200))
def test_what_a_row_can_lose_is_bounded(rights: list[int]) -> None:
    """Whatever is guessed, an answer takes at most 3 % longer from 23 tokens on, where a position more is a fifth of a

    pass: what is checked in vain is 2 positions and one for every 16 tokens, but for what right guesses have earned.
    """
    budget, wrong, right, passes, length = Budget(), 0, 0, 0.0, 0
    for count in rights:
        guessed = budget.length
        held = min(count, guessed)
        budget.judged(guessed, held)
        budget.wrote(held + 1)
        wrong, right, length = wrong + guessed - held, right + held, length + held + 1
        passes += 1 + guessed / 5
        assert wrong <= 2 + 2 * right + length / 16
        assert length < 23 or passes <= 1.03 * length


def test_as_much_is_taken_as_holds() -> None:
    asked: list[int] = []

    def draw(at: int) -> int:
        asked.append(at)
        return [5, 6, 9, 8][at]

    assert drawn([5, 6, 7], draw) == [5, 6, 9]
    assert asked == [0, 1, 2], "what comes after a wrong guess is never drawn: a seed is as far as without"
    assert drawn([5, 6, 9], draw) == [5, 6, 9, 8]
    assert drawn([], draw) == [5]
    assert drawn([5, 6, 9], draw, lambda: True) == [5]


# After each token, the probabilities of 0 to 3.
CHAIN = np.array([[0.6, 0.2, 0.15, 0.05], [0.1, 0.7, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [0.05, 0.05, 0.45, 0.45]])


@pytest.mark.parametrize(
    "draft", [[0, 0, 0], [3, 3, 2], *(pytest.param(each, marks=pytest.mark.long) for each in ([1, 1, 1], [2, 0, 1]))]
)
def test_whatever_is_guessed_three_tokens_have_the_models_distribution(draft: list[int]) -> None:
    """40,000 texts of three tokens after a 0: each of the 64 as often as the chain says, within five deviations."""
    random, counts, texts = np.random.default_rng(17), np.zeros((4, 4, 4)), 40_000
    for _ in range(texts):
        written = [0]
        while len(written) < 4:
            left = draft[len(written) - 1 :]

            def draw(at: int, before: list[int] = written, left: list[int] = left) -> int:
                last = [*before, *left][len(before) - 1 + at]
                return int(np.searchsorted(np.cumsum(CHAIN[last]), random.random(), side="right"))

            written += drawn(left, draw)
        counts[tuple(written[1:4])] += 1
    expected = CHAIN[0][:, None, None] * CHAIN[:, :, None] * CHAIN[None, :, :] * texts
    assert np.all(np.abs(counts - expected) <= 5 * np.sqrt(expected) + 1)
    squares = ((counts - expected) ** 2 / expected).sum()
    assert squares < 63 + 5 * np.sqrt(2 * 63)
