"""A worker that is asked ever new things grows up to the budget of its prefix cache, and no further."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache, make_prompt_cache

from squish.worker.cache.prefix import PrefixCache
from tests.worker.test_runner import Bench, prepared, tiny_llama, tiny_rotating, words

HELD = 6  # prompts for which the budget has room


def numbered(request: int) -> list[int]:
    """A prompt that shares its beginning with no other."""
    return [request % 95, request // 95, *words(300, start=request)]


def active() -> int:
    """Bytes of MLX's arrays in this process, without those that only wait to be collected, of other tests too."""
    mx.synchronize()  # what is computed holds what it is computed from
    gc.collect()
    mx.clear_cache()
    return mx.get_active_memory()


@pytest.mark.parametrize(
    ("make", "together"),
    [
        (tiny_llama, 1),
        (tiny_rotating, 4),
        pytest.param(tiny_llama, 4, marks=pytest.mark.long),
        pytest.param(tiny_rotating, 1, marks=pytest.mark.long),
    ],
)
def test_memory_ends_at_the_budget(make: Callable[[], Any], together: int) -> None:
    model = make()
    one = Bench(model)
    one.run(prepared(1, numbered(1)))
    entry = one.prefix.nbytes
    assert entry
    budget = HELD * entry
    bench = Bench(model, PrefixCache(budget, make_prompt_cache(model)))
    del one
    bench.run(prepared(1, numbered(1)))
    base = active() - bench.prefix.nbytes
    rounds = 2 * max(4, HELD // together + 1)  # the first half of them fills it
    held, beside = [], []
    for first in range(2, 2 + rounds * together, together):
        bench.run(*(prepared(request, numbered(request)) for request in range(first, first + together)))
        held.append(bench.prefix.nbytes)
        beside.append(active() - base - bench.prefix.nbytes)
    assert max(held) >= 3 * entry or not bench.prefix.trimmable, "it is the prefix cache that grows"
    # Which snapshots of several rows find room beside the caches of those that still run depends on how fast prompts
    # are read: none after one round, two after the next. An array of one may be a part of a larger one.
    assert max(held) <= budget
    assert all(more <= of + entry for more, of in zip(beside, held, strict=True)), "and nothing beside it"
    assert max(beside[rounds // 2 :]) <= max(beside[: rounds // 2]) + 2 * entry


def test_a_batch_of_tiny_prompts_ends_at_the_budget_too() -> None:
    """Shorter than a block, which only an exact cache keeps; nor does anything that found them stay."""
    prefix = PrefixCache(HELD * 2 * 2 * 8 * 16 * 4, [KVCache()], exact=True)  # bytes of keys and values
    kept = []
    for request in range(60):
        cache = KVCache()
        cache.update_and_fetch(mx.ones((1, 2, 8, 16)), mx.ones((1, 2, 8, 16)))
        tokens = [request, *range(1, 8)]
        assert prefix.wants(tokens)
        prefix.put(tokens, [cache])
        kept.append((len(prefix), len(prefix._root.children), prefix.nbytes))
    assert kept[HELD - 1 :] == [(HELD, HELD, prefix.budget)] * (len(kept) - HELD + 1)
    assert prefix.take([0, *range(1, 9)]) == (0, None)
    assert prefix.take([59, *range(1, 9)])[0] == 8
