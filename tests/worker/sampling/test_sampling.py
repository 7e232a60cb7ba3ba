"""Samplers: what may be drawn, and that both backends draw from the same distribution."""

from __future__ import annotations

from typing import cast

import mlx.core as mx
import numpy as np
import pytest

from squish.generation import SamplingParams
from squish.worker.cpu import extension
from squish.worker.sampling.samplers import Sampler, Samplers, _allowed, _draw, greedy
from tests.worker.cpu.opened import native

PROBABILITIES = np.array([0.5, 0.25, 0.15, 0.06, 0.04])
DRAWS = 3000


def logprobs(rows: int = DRAWS) -> mx.array:
    return mx.array(np.tile(np.log(PROBABILITIES), (rows, 1)).astype(np.float32))


def shares(params: SamplingParams, use_numpy: bool) -> np.ndarray:
    """How often each token was drawn, as a share."""
    sample = Samplers(use_numpy).of_row(params, 0)
    return np.bincount(np.array(sample(logprobs())), minlength=len(PROBABILITIES)) / DRAWS


@pytest.mark.parametrize("use_numpy", [True, False], ids=["numpy", "mlx"])
@pytest.mark.parametrize(
    ("params", "allowed"),
    [
        (SamplingParams(temperature=1, top_p=1, seed=1), [0.5, 0.25, 0.15, 0.06, 0.04]),
        (SamplingParams(temperature=1, top_p=0.7, seed=1), [0.5, 0.25, 0, 0, 0]),
        (SamplingParams(temperature=1, top_p=1, top_k=3, seed=1), [0.5, 0.25, 0.15, 0, 0]),
        (SamplingParams(temperature=1, top_p=1, min_p=0.2, seed=1), [0.5, 0.25, 0.15, 0, 0]),
        (SamplingParams(temperature=0.5, top_p=1, seed=1), (PROBABILITIES**2).tolist()),
        (SamplingParams(temperature=1, top_p=0.01, seed=1), [1, 0, 0, 0, 0]),
    ],
    ids=["plain", "top_p", "top_k", "min_p", "temperature", "tiny top_p"],
)
def test_the_distribution_is_what_was_asked_for(params: SamplingParams, allowed: list[float], use_numpy: bool) -> None:
    expected = np.array(allowed) / np.sum(allowed)
    drawn = shares(params, use_numpy)
    assert np.all(drawn[expected == 0] == 0)
    assert np.abs(drawn - expected).max() < 0.04


def test_a_flat_distribution_larger_than_the_selection_is_not_cut_short() -> None:
    flat = mx.full((400, 5000), float(-np.log(5000)))
    drawn = np.array(Samplers(True).of_row(SamplingParams(temperature=2, top_p=0.9, seed=3), 0)(flat))
    assert len(np.unique(drawn)) > 350


@pytest.mark.parametrize("use_numpy", [True, False], ids=["numpy", "mlx"])
def test_a_seeded_row_repeats_itself_and_differs_from_its_neighbor(use_numpy: bool) -> None:
    params = SamplingParams(temperature=1, top_p=1, seed=5)

    def draw(row: int) -> list[int]:
        sample = Samplers(use_numpy).of_row(params, row)
        return [cast(int, sample(logprobs(1)).item()) for _ in range(24)]

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_rows_of_equal_parameters_share_a_sampler_unless_seeded() -> None:
    samplers = Samplers(True)
    assert samplers.of_row(SamplingParams(), 0) is samplers.of_row(SamplingParams(max_tokens=9), 3)
    assert samplers.of_row(SamplingParams(temperature=0), 0) is samplers.of_row(
        SamplingParams(temperature=0, seed=1), 1
    )
    assert samplers.of_row(SamplingParams(seed=1), 0) is not samplers.of_row(SamplingParams(seed=1), 0)
    assert samplers.of_row(SamplingParams(seed=-1), 0) is samplers.of_row(SamplingParams(), 0)
    assert samplers.of_row(SamplingParams(top_p=0), 0) is samplers.of_row(SamplingParams(temperature=0), 0)


@pytest.mark.parametrize("draw", range(8))
def test_the_extension_draws_what_numpy_draws(draw: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(draw)
    rows = chance.normal(0, chance.choice([0.5, 3, 12]), (40, 3000)).astype(np.float32)
    rows[:, ::3] = -np.inf
    rows -= np.logaddexp.reduce(rows, axis=1, keepdims=True)
    for top_p, min_p, top_k in [
        (1, 0, 0),
        (0.9, 0, 0),
        (0.3, 0, 40),
        (1, 0.05, 0),
        (1, 0, 5),
        (0.99, 0.001, 100),
        (1, 1e-9, 0),
    ]:
        params = SamplingParams(temperature=0.7, top_p=top_p, min_p=min_p, top_k=top_k, seed=draw)
        tokens = []
        for opened in (native(), None):
            monkeypatch.setattr(extension, "module", lambda opened=opened: opened)
            tokens.append(np.array(Samplers(True).of_row(params, 0)(mx.array(rows))))
        assert (tokens[0] == tokens[1]).all(), params


def test_greedy_takes_the_likeliest_of_each_row() -> None:
    assert greedy(mx.array([[0.1, 0.9, 0.2], [0.5, 0.1, 0.2]])).tolist() == [1, 0]


def parameters(top_p: float = 1, min_p: float = 0, top_k: int = 0, temperature: float = 1) -> SamplingParams:
    return SamplingParams(temperature=temperature, top_p=top_p, min_p=min_p, top_k=top_k)


@pytest.mark.parametrize(
    ("params", "allowed"),
    [
        (parameters(), [0, 1, 2, 3, 4]),
        (parameters(top_p=0.5), [1, 0]),
        (parameters(top_p=0.01), [1]),
        (parameters(top_p=0.6, top_k=4), [1, 0]),
        (parameters(top_k=1), [1]),
        (parameters(top_k=2), [1, 0]),
        (parameters(top_k=9), [1, 0, 4, 3, 2]),
        (parameters(min_p=0.5), [1, 0]),
        (parameters(min_p=0.01), [1, 0, 4, 3]),
        (parameters(min_p=0.01, top_k=3), [1, 0, 4]),
        (parameters(top_p=0.99999, min_p=0.5, top_k=3), [1, 0]),
    ],
)
def test_which_tokens_may_be_drawn(params: SamplingParams, allowed: list[int]) -> None:
    """The likeliest first, where any is left out."""
    row = np.log(np.array([0.3, 0.45, 0.0005, 0.0495, 0.2]))
    assert _allowed(row, params).tolist() == allowed


def test_as_likely_as_the_likeliest_is_likely_enough() -> None:
    assert _allowed(np.log(np.array([0.4, 0.4, 0.2])), parameters(min_p=1)).tolist() == [0, 1]


def test_without_top_p_no_token_goes_for_what_the_others_have() -> None:
    """Of tokens that are all but impossible beside the first, whose share is one in float."""
    row = np.array([0.0, -800.0, -900.0])
    assert _allowed(row, parameters(top_k=2)).tolist() == [0, 1]
    assert len(_allowed(np.array([0.0] + [-50.0] * 2000), parameters(min_p=1e-30))) == 2001


def test_more_candidates_than_are_usual_are_all_looked_at() -> None:
    row = np.log(np.arange(1, 3001) / np.arange(1, 3001).sum())
    assert _allowed(row, parameters(top_k=1500)).tolist() == list(range(2999, 1499, -1))
    assert _allowed(row, parameters(top_k=5)).tolist() == [2999, 2998, 2997, 2996, 2995]
    assert len(_allowed(row, parameters(min_p=0.5))) == 1501


class Certain:
    """A random source that says one number."""

    def __init__(self, number: float) -> None:
        self._number = number

    def random(self) -> float:
        return self._number


def drawn(row: list[float], number: float, params: SamplingParams | None = None) -> int:
    return _draw(np.array(row), params or parameters(), cast(np.random.Generator, Certain(number)))


def test_a_number_between_0_and_1_falls_into_the_share_of_its_token() -> None:
    row = np.log([0.25, 0.5, 0.25]).tolist()
    assert [drawn(row, number) for number in (0, 0.2499, 0.25, 0.7499, 0.75, 0.9999)] == [0, 0, 1, 1, 2, 2]
    halved = parameters(temperature=0.5)  # shares of 1, 4 and 1 sixths
    assert [drawn(row, number, halved) for number in (0.16, 0.17, 0.83, 0.84)] == [0, 1, 1, 2]
    assert drawn(row, 0.5, parameters(top_k=1)) == 1


def test_tokens_that_are_all_unlikely_have_their_shares() -> None:
    assert [drawn([-1000.0, -1000.0], number) for number in (0.4, 0.6)] == [0, 1]
    assert [drawn([1000.0, 1000.0], number) for number in (0.4, 0.6)] == [0, 1]


def test_rounding_does_not_lead_to_a_token_that_is_forbidden() -> None:
    assert drawn([0.0, 0.0, -np.inf, -np.inf], 1.0) == 1


def uniforms(sampler: Sampler, draws: int = 12, dtype: mx.Dtype = mx.float32) -> list[int]:
    """Thousandths of the numbers that a sampler draws, of a row that says nothing."""
    row = mx.zeros((1, 1000), dtype=dtype)
    return [cast(int, sampler(row).item()) for _ in range(draws)]


def expected(seed: int, row: int, draws: int = 12) -> list[int]:
    return (np.random.default_rng(np.random.SeedSequence((seed, row))).random(draws) * 1000).astype(int).tolist()


@pytest.mark.parametrize(("seed", "as_unsigned"), [(0, 0), (7, 7), (-2, 2**64 - 2), (2**64 - 1, 2**64 - 1)])
def test_a_seed_is_one_of_64_bits(seed: int, as_unsigned: int) -> None:
    sampler = Samplers(True).of_row(SamplingParams(temperature=1, top_p=1, seed=seed), 3)
    assert uniforms(sampler) == expected(as_unsigned, 3)


@pytest.mark.parametrize("use_numpy", [True, False], ids=["numpy", "mlx"])
def test_a_seeded_row_goes_on_where_it_stopped(use_numpy: bool) -> None:
    params, samplers = SamplingParams(temperature=1, top_p=1, seed=5), Samplers(use_numpy)
    whole = uniforms(samplers.of_row(params, 0))
    assert uniforms(samplers.of_row(params, 0, drawn=4), 8) == whole[4:]
    assert (whole == expected(5, 0)) is use_numpy


def test_numbers_of_another_format_are_drawn_from_too(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = native()
    monkeypatch.setattr(extension, "module", lambda: opened)
    sampler = Samplers(True).of_row(SamplingParams(temperature=1, top_p=1, seed=7), 3)
    assert uniforms(sampler, dtype=mx.bfloat16) == expected(7, 3)


def test_samplers_are_shared_among_the_latest_64_kinds_of_request() -> None:
    samplers = Samplers(True)

    def of(kind: int) -> Sampler:
        return samplers.of_row(SamplingParams(top_k=kind), 0)

    first = of(1)
    last = [of(kind) for kind in range(2, 65)]
    assert of(1) is first
    assert len({id(each) for each in (first, *last)}) == 64
    of(65)
    assert of(1) is not first


@pytest.mark.parametrize("use_numpy", [True, False], ids=["numpy", "mlx"])
@pytest.mark.parametrize(("top_k", "left"), [(1, 1), (4, 4), (5, 5), (100, 5)])
def test_a_top_k_as_large_as_the_vocabulary_leaves_all_of_it(top_k: int, left: int, use_numpy: bool) -> None:
    params = SamplingParams(temperature=1, top_p=1, top_k=top_k, seed=1)
    assert np.count_nonzero(shares(params, use_numpy)) == left
