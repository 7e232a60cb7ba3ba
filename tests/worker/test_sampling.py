"""Samplers: what may be drawn, and that both backends draw from the same distribution."""

from __future__ import annotations

from typing import cast

import mlx.core as mx
import numpy as np
import pytest

from squish.generation import SamplingParams
from squish.worker.cpu import extension
from squish.worker.sampling import Samplers
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
