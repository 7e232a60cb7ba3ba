"""Where a prompt of several messages is worth keeping: at the ends of messages, far enough apart, few of them."""

from __future__ import annotations

import pytest

from squish.worker.cache.branches import APART, branch_points

END = 9


def prompt(length: int, *ends: int) -> list[int]:
    """So many tokens, of messages with these ends."""
    tokens = [1] * length
    for end in ends:
        tokens[end - 1] = END
    return tokens


def test_the_last_messages_are_kept_and_fewer_of_the_earlier_ones() -> None:
    ends = range(300, 3600, 300)
    assert branch_points(prompt(3700, *ends), 0, {END}) == [1200, 2100, 2700, 3000, 3300]
    assert branch_points(prompt(3700, *ends), 2100, {END}) == [2700, 3000, 3300]
    assert branch_points(prompt(3700, *ends), 0, {END + 1}) == []


@pytest.mark.parametrize(
    ("begin", "ends", "found"),
    [
        (0, (3 * APART,), [3 * APART]),
        (0, (3 * APART + 1,), []),  # too near to the end of the prompt
        (0, (3 * APART - 1,), [3 * APART - 1]),
        (0, (APART,), [APART]),
        (0, (APART - 1,), []),
        (2 * APART, (3 * APART,), [3 * APART]),
        (2 * APART + 1, (3 * APART,), []),  # too near to what is kept already
        (0, (2 * APART, 3 * APART), [2 * APART, 3 * APART]),
        (0, (2 * APART + 1, 3 * APART), [3 * APART]),
        (0, (APART, 2 * APART + 1, 3 * APART), [APART, 3 * APART]),
    ],
)
def test_points_lie_apart_from_each_other_and_from_both_ends(
    begin: int, ends: tuple[int, ...], found: list[int]
) -> None:
    assert branch_points(prompt(4 * APART, *ends), begin, {END}) == found


def test_a_short_prompt_is_kept_at_its_end_alone() -> None:
    for length in (0, 1, APART, 2 * APART - 1):
        assert branch_points([END] * length, 0, {END}) == []
    assert branch_points([END] * 2 * APART, 0, {END}) == [APART]
