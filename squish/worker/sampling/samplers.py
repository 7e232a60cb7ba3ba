"""Samplers: from log-probabilities to one token a row, each row with a random source of its own.

A seeded row draws the same tokens alone and in any batch, because it shares nothing with its neighbors. Greedy and
unseeded rows share one sampler object per parameters, so that mlx-lm samples them in one call.

Three ways to the same distribution. On a GPU everything stays lazy in MLX. On the CPU backend MLX takes 5 ms to sort a
row of 49,152 log-probabilities and 0.9 ms to draw, a fifth of a small model's step. numpy takes 0.5 ms for both, but
the next step cannot be built meanwhile; the extension takes as long and stays lazy, and draws what numpy would.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

from squish.generation import SamplingParams
from squish.worker.cpu import extension

Sampler = Callable[[mx.array], mx.array]

_CANDIDATES = 1024


def greedy(logprobs: mx.array) -> mx.array:
    """(rows, vocabulary) log-probabilities → (rows,) tokens."""
    return mx.argmax(logprobs, axis=-1)


class Samplers:
    """Makes the sampler of each row. use_numpy: the CPU backend's way."""

    def __init__(self, use_numpy: bool) -> None:
        self._use_numpy = use_numpy
        self._shared: dict[tuple[float, float, int, float], Sampler] = {}

    def of_row(self, params: SamplingParams, row: int, drawn: int = 0) -> Sampler:
        """The sampler of one row. Rows of a seeded request differ from each other, each reproducibly.

        drawn: how many tokens the row has already, after which a seeded one goes on as if it had never stopped.
        """
        if params.temperature == 0 or params.top_p == 0:
            return greedy
        if params.seed not in (None, -1):
            assert params.seed is not None
            return self._make(params, (params.seed & (2**64 - 1), row), drawn)
        key = (params.temperature, params.top_p, params.top_k, params.min_p)
        if key not in self._shared:
            if len(self._shared) >= 64:
                self._shared.clear()
            self._shared[key] = self._make(params, None)
        return self._shared[key]

    def _make(self, params: SamplingParams, seed: tuple[int, int] | None, drawn: int = 0) -> Sampler:
        source = np.random.SeedSequence(seed) if seed else np.random.SeedSequence()
        return (_numpy_sampler if self._use_numpy else _mlx_sampler)(params, source, drawn)


def _numpy_sampler(params: SamplingParams, source: np.random.SeedSequence, drawn: int) -> Sampler:
    random = np.random.default_rng(source)
    random.random(drawn)

    def sample(logprobs: mx.array) -> mx.array:
        native = extension.module()
        if native is not None and logprobs.dtype == mx.float32:
            uniforms = random.random(logprobs.shape[0]).tolist()
            how = params.temperature, params.top_p, params.min_p, params.top_k
            drawn: mx.array = native.draw(logprobs, uniforms, *how)
            return drawn
        rows = np.array(logprobs.astype(mx.float32), copy=False)
        return mx.array([_draw(row, params, random) for row in rows], dtype=mx.uint32)

    return sample


def _draw(logprobs: np.ndarray, params: SamplingParams, random: np.random.Generator) -> int:
    """One token of a row: top_p, min_p and top_k on the model's own distribution, then temperature."""
    allowed = _allowed(logprobs, params)
    scaled = logprobs[allowed].astype(np.float64) / params.temperature
    weights = np.exp(scaled - scaled.max())
    cumulative = np.cumsum(weights)
    position = int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))
    # Rounding may lead past the last token of any weight, into those that a grammar forbids.
    return int(allowed[min(position, int(np.searchsorted(cumulative, cumulative[-1])))])


def _allowed(logprobs: np.ndarray, params: SamplingParams) -> np.ndarray:
    """Token ids that may be drawn, the most probable first; at least one."""
    if params.top_p >= 1 and params.min_p == 0 and params.top_k == 0:
        return np.arange(len(logprobs))
    candidates = _most_probable(logprobs, params)
    chosen = logprobs[candidates]
    keep = len(candidates)
    if params.top_p < 1:
        mass = np.cumsum(np.exp(chosen.astype(np.float64)))
        keep = min(keep, int(np.searchsorted(mass, params.top_p)) + 1)
    if params.min_p > 0:
        keep = min(keep, int(np.count_nonzero(chosen >= chosen[0] + np.log(params.min_p))))
    if params.top_k > 0:
        keep = min(keep, params.top_k)
    return candidates[: max(keep, 1)]


def _most_probable(logprobs: np.ndarray, params: SamplingParams) -> np.ndarray:
    """Token ids by falling probability: a selection when it is sure to hold all that may be drawn, else all."""
    size = min(len(logprobs), max(_CANDIDATES, params.top_k))
    top = np.argpartition(logprobs, -size)[-size:]
    covered = np.exp(logprobs[top].astype(np.float64)).sum()
    enough = params.top_k > 0 or (params.top_p < 1 and covered >= params.top_p)
    if not enough:
        top = np.arange(len(logprobs))
    return top[np.argsort(-logprobs[top], kind="stable")]


def _mlx_sampler(params: SamplingParams, source: np.random.SeedSequence, drawn: int) -> Sampler:
    state = mx.random.key(int(source.generate_state(1, np.uint64)[0]))
    for _ in range(drawn):
        state, _key = mx.random.split(state)

    def sample(logprobs: mx.array) -> mx.array:
        nonlocal state
        state, key = mx.random.split(state)
        if params.top_p < 1:
            logprobs = apply_top_p(logprobs, params.top_p)
        if params.min_p > 0:
            logprobs = apply_min_p(logprobs, params.min_p)
        if 0 < params.top_k < logprobs.shape[-1]:
            logprobs = apply_top_k(logprobs, params.top_k)
        return mx.random.categorical(logprobs * (1 / params.temperature), key=key)

    return sample
