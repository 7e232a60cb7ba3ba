"""Families whose layers keep a state answer each row as they answer it alone, and go on from what they know."""

from __future__ import annotations

import pytest

from squish.generation import SamplingParams
from tests.worker.gguf.cases_state import STATE
from tests.worker.gguf.test_families import made, uncompiled
from tests.worker.test_runner import Bench, answer, end, prepared, repeatable, words

__all__ = ["repeatable", "uncompiled"]  # fixtures
_LABELS = ("mamba", "mamba2", "jamba", "nemotron_h", "rwkv7", "kimi-linear")
_GREEDY = SamplingParams(temperature=0, max_tokens=6)


@pytest.mark.parametrize("label", _LABELS)
def test_rows_of_different_lengths_are_answered_as_alone(label: str) -> None:
    model = made(next(case for case in STATE if case.id == label))[0]
    items = [prepared(number, words(9 + 14 * number, number), sampling=_GREEDY) for number in range(3)]
    alone = [answer(Bench(model).run(each)[each.request]) for each in items]
    together = Bench(model).run(*items)
    assert [answer(together[each.request]) for each in items] == alone
    assert len(set(alone)) == 3


@pytest.mark.parametrize("label", _LABELS)
def test_a_repeated_prompt_computes_only_what_is_new(label: str) -> None:
    bench = Bench(made(next(case for case in STATE if case.id == label))[0])
    [first] = bench.run(prepared(1, words(100), sampling=_GREEDY)).values()
    computed = bench.forwarded
    [again] = bench.run(prepared(2, words(100), sampling=_GREEDY)).values()
    assert answer(again) == answer(first)
    assert end(again).usage.cached_tokens > 60
    assert bench.forwarded - computed < computed / 2
