"""How much of a layer each rank gets."""

from __future__ import annotations

from itertools import product

import pytest

from squish.worker.group.shares import spans


def test_everything_is_somebodys_once_and_everybody_has_something() -> None:
    for heads, pieces, size, attention, ends in product(
        (1, 2, 3, 5, 8), (1, 7, 24, 140), (1, 2, 3, 5), (0.05, 0.33, 4.0), (0.0, 0.5, 3.0)
    ):
        if size > min(heads, pieces):
            continue
        shares = spans(heads, pieces, size, attention, ends)
        for of_each, whole in (([s.heads for s in shares], heads), ([s.pieces for s in shares], pieces)):
            assert [begin for begin, _ in of_each] == [0, *(end for _, end in of_each[:-1])]
            assert of_each[-1][1] == whole
            assert all(begin < end for begin, end in of_each)


def test_what_heads_leave_uneven_the_mlp_evens_out() -> None:
    first, second = spans(heads=3, pieces=24, size=2, attention=1 / 3, ends=0.0)
    assert (first.heads, second.heads) == ((0, 1), (1, 3))
    held = [(h[1] - h[0]) / 3 / 3 + (p[1] - p[0]) / 24 for h, p in ((s.heads, s.pieces) for s in (first, second))]
    assert held[0] == pytest.approx(held[1], rel=0.05)


@pytest.mark.parametrize("size", [2, 4])
def test_the_first_rank_has_as_much_less_of_the_layers_as_it_holds_besides(size: int) -> None:
    shares = spans(heads=8, pieces=256, size=size, attention=0.3, ends=0.2)
    held = [0.3 * (h[1] - h[0]) / 8 + (p[1] - p[0]) / 256 for h, p in ((s.heads, s.pieces) for s in shares)]
    assert [held[0] + 0.2, *held[1:]] == pytest.approx([1.5 / size] * size, rel=0.02)
