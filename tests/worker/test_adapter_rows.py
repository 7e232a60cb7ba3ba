"""Rows with adapters in the runner: one batch, answers as alone, and a prefix cache for each."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from squish.worker.adapters.files import dimensions
from squish.worker.cpu.fusion import fuse
from squish.worker.rows import Prepared
from tests.worker.cpu.opened import native
from tests.worker.speculation.test_decoding import LONG, guessed, let_guess_well, repeating, tokens_of
from tests.worker.test_adapters import RANK, peft
from tests.worker.test_runner import GREEDY, Bench, answer, end, tiny_llama, tiny_recurrent, tiny_rotating, words


@pytest.fixture(autouse=True)
def the_same_weights() -> None:
    """Tiny models have random weights: these tests compare answers, which must not depend on what ran before."""
    mx.random.seed(0)


def adapter_for(model: Any, path: Path, seed: int) -> str:
    """A random change that is large enough to change answers."""
    mx.random.seed(seed)
    given = {}
    for name, module in model.named_modules():
        size = dimensions(module)
        if size is not None and name.endswith(("v_proj", "down_proj", "up_proj", "w1")):
            given[name] = mx.random.normal((RANK, size[1])), mx.random.normal((size[0], RANK))
    return str(peft(path, given))


def asked(request: int, tokens: list[int], adapter: str | None = None) -> Prepared:
    return Prepared(request, [tokens], GREEDY, time.monotonic(), adapter=adapter)


@pytest.mark.parametrize("make", [tiny_llama, tiny_rotating, tiny_recurrent])
def test_rows_with_different_adapters_share_a_batch_and_answer_as_alone(make: Any, tmp_path: Path) -> None:
    model = make()
    one, other = adapter_for(model, tmp_path / "one", 1), adapter_for(model, tmp_path / "other", 2)
    given = [asked(1, words(100), one), asked(2, words(130)), asked(3, words(100), other), asked(4, words(70), one)]
    together = Bench(model).run(*given)
    alone = {item.request: Bench(model).run(item)[item.request] for item in given}
    assert {id: answer(events) for id, events in together.items()} == {
        id: answer(events) for id, events in alone.items()
    }
    plain = answer(Bench(model).run(asked(1, words(100)))[1])
    assert len({answer(alone[1]), answer(alone[3]), plain}) == 3


@pytest.mark.parametrize("apart", [pytest.param(False, marks=pytest.mark.long), True])
def test_rows_with_adapters_guess_and_answer_as_without(
    apart: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apart: rows have caches of their own, as on a CPU."""
    model, chance = tiny_llama(), random.Random(2)
    assert not apart or fuse(model, native())
    adapters = [adapter_for(model, tmp_path / "one", 1), None, adapter_for(model, tmp_path / "other", 2)]
    given = [
        Prepared(number, [repeating(chance)], LONG, time.monotonic(), adapter=adapter)
        for number, adapter in enumerate(adapters)
    ]
    alone = {item.request: answer(Bench(model).run(item)[item.request]) for item in given}
    let_guess_well(monkeypatch, [[*item.tokens[0], *tokens_of(alone[item.request])] for item in given], chance)
    events = Bench(model, lookup=True).run(*given)
    assert {request: answer(each) for request, each in events.items()} == alone
    assert all(guessed(each)[1] > 40 for each in events.values())


def test_what_was_read_with_an_adapter_serves_that_adapter_alone(tmp_path: Path) -> None:
    model = tiny_llama()
    one, other = adapter_for(model, tmp_path / "one", 1), adapter_for(model, tmp_path / "other", 2)
    bench = Bench(model)
    first = bench.run(asked(1, words(300), one))[1]
    for adapter, cached in ((None, 0), (other, 0), (one, 256), (None, 256)):
        events = bench.run(asked(2, words(300), adapter))[2]
        assert end(events).usage.cached_tokens == cached, adapter
        assert (answer(events) == answer(first)) == (adapter == one)


def test_an_adapter_that_cannot_be_read_fails_its_own_request(tmp_path: Path) -> None:
    bench = Bench(tiny_llama())
    ends = bench.run(asked(1, words(50)), asked(2, words(50), str(tmp_path / "gone")))
    assert [failed.request for failed in bench.failures] == [2]
    assert "adapter_config.json" in bench.failures[0].failure.message
    assert end(ends[1]).usage.completion_tokens


def test_an_adapter_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    model = tiny_llama()
    path = adapter_for(model, tmp_path / "one", 1)
    (tmp_path / "one" / "manifest.toml").write_text("first")
    bench = Bench(model)
    first = answer(bench.run(asked(1, words(300), path))[1])
    newer = tmp_path / "newer"
    adapter_for(model, newer, 9)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / "one" / name).unlink()
        (newer / name).rename(tmp_path / "one" / name)
    assert answer(bench.run(asked(2, words(300), path))[2]) == first  # nobody has said that it is another one
    (tmp_path / "one" / "manifest.toml").write_text("second")
    events = bench.run(asked(3, words(300), path))[3]
    assert end(events).usage.cached_tokens == 0 and answer(events) != first
