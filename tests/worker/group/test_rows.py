"""A rank above 0 holds the rows that rank 0 holds, whatever the batch does with them: both are in this process here."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import msgspec
import pytest

from squish.errors import UnsupportedModel
from squish.generation import Finished, SamplingParams
from squish.ipc.frames import Cancel
from squish.ipc.group_frames import Drop, Fork, Forward, Operation
from squish.worker.cpu.fusion import fuse
from squish.worker.group.follower import Follower
from squish.worker.group.leader import Leading
from squish.worker.group.rows import OutOfStep, Rows
from squish.worker.group.sharding import cut
from squish.worker.group.watch import Watch
from squish.worker.runner import Runner
from squish.worker.speculation.draft_model import DraftModel
from tests.worker.cpu.opened import native
from tests.worker.gguf.cases_state import STATE
from tests.worker.gguf.test_families import made, uncompiled
from tests.worker.group.test_watch import rank_0
from tests.worker.speculation.test_decoding import LONG, guessed, let_guess_well, repeating, tokens_of
from tests.worker.test_runner import (
    VOCABULARY,
    Bench,
    answer,
    prepared,
    repeatable,
    tiny_llama,
    tiny_recurrent,
    tiny_rotating,
    tokenizer,
    words,
)

__all__ = ["repeatable", "uncompiled"]


class Alone:
    """A group in which nothing is summed."""

    def __init__(self) -> None:
        self.noted: list[mx.array] = []

    def take(self) -> list[mx.array]:
        noted, self.noted = self.noted, []
        return noted


class Spoken:
    """A model that remembers what it said of each pass."""

    def __init__(self, model: Any, collectives: Alone) -> None:
        self._model, self._collectives = model, collectives
        self.said: list[mx.array] = []

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        logits: mx.array = self._model(tokens, cache=cache)
        self._collectives.noted.append(logits)
        self.said.append(logits)
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class GroupBench(Bench):
    """A runner as rank 0, and a follower that is told of its passes and computes with all of the same model."""

    def __init__(self, model: Any, **guessing: Any) -> None:
        super().__init__(model)
        leads, follows = Alone(), Alone()
        self.led, self.followed = Spoken(model, leads), Spoken(model, follows)
        self.follower = Follower(self.followed, follows)  # type: ignore[arg-type]
        self.passes: list[Forward] = []
        leading = Leading(self.led, leads, self._apply, Watch(rank_0(2), 0.0))  # type: ignore[arg-type]
        self._runner = Runner(
            leading, tokenizer(), 2048, self.prefix, self._inbox, self._take, group=leading, **guessing
        )

    def _apply(self, operation: Operation) -> None:
        if isinstance(operation, Forward):
            self.passes.append(operation)
        self.follower.apply(operation)

    def compare(self) -> None:
        """Of every pass, what both said of the tokens that are the rows' own."""
        assert len(self.passes) == len(self.led.said) == len(self.followed.said) > 0
        for frame, led, followed in zip(self.passes, self.led.said, self.followed.said, strict=True):
            for row, tokens in enumerate(frame.tokens):
                own = slice(0, len(tokens))
                assert mx.allclose(led[row, own], followed[row, own], rtol=1e-4, atol=1e-4)


def plain() -> Any:
    return tiny_llama()


def fused() -> Any:
    model = tiny_llama()
    assert fuse(model, native(), 16)
    return model


@pytest.mark.parametrize("made", [plain, fused, tiny_rotating, tiny_recurrent])
def test_both_ranks_say_the_same_of_every_pass(made: Callable[[], Any]) -> None:
    bench = GroupBench(made())
    shared = words(140)
    several = SamplingParams(temperature=1.0, seed=3, max_tokens=6, n=3)
    bench.run(prepared(1, shared), prepared(2, [7, 8, 9], sampling=several), prepared(3, words(30), words(9)))
    warm = bench.run(prepared(4, [*shared, 5, 6], words(4)), prepared(5, words(500), sampling=several), Cancel(5))
    assert any(event.usage.cached_tokens for event in warm[4] if isinstance(event, Finished))
    bench.compare()


@pytest.mark.parametrize("made", [pytest.param(plain, marks=pytest.mark.long), fused])
def test_both_ranks_take_back_what_was_guessed_wrong(made: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that come and go, each with guesses of its own; what goes on from one of them knows what was taken back."""
    chance = random.Random(3)
    model = made()
    sampling = msgspec.structs.replace(LONG, max_tokens=40)
    items = [prepared(number, repeating(chance), sampling=sampling) for number in range(5)]
    alone = {item.request: answer(Bench(model).run(item)[item.request]) for item in items}
    let_guess_well(monkeypatch, [[*item.tokens[0], *tokens_of(alone[item.request])] for item in items], chance)
    bench = GroupBench(model, lookup=True)
    right = wrong = 0
    for chosen in (items[:1], items[:3], items[1:5], items[2:]):
        events = bench.run(*chosen)
        for item in chosen:
            assert answer(events[item.request]) == alone[item.request]
            drafted, accepted = guessed(events[item.request])
            right, wrong = right + accepted, wrong + drafted - accepted
    assert right > 100 and wrong > 10
    bench.compare()


def test_a_draft_of_rank_0_alone_guesses_for_all_ranks() -> None:
    model = fused()
    item = prepared(1, words(30), sampling=LONG)
    alone = answer(Bench(model).run(item)[1])
    bench = GroupBench(model, draft=DraftModel(model, VOCABULARY, "draft"))
    events = bench.run(item)[1]
    assert answer(events) == alone
    assert guessed(events)[1] > 50
    bench.compare()


def test_rows_that_nobody_needs_any_more_are_dropped() -> None:
    bench = GroupBench(tiny_llama())
    bench.run(*(prepared(request, [*words(80, start=request)]) for request in range(1, 5)))
    gc.collect()
    assert isinstance(bench._runner._group, Leading)
    bench._runner._batch = bench._runner._new_batch()
    bench._runner._group.settle()
    assert len(bench.follower._rows) == len(bench.prefix) == 4


def test_a_row_that_is_not_known_is_an_error() -> None:
    rows = Rows(tiny_llama())
    with pytest.raises(OutOfStep):
        rows.fork(Fork(2, 1, 3))
    rows.fork(Fork(1, None, 0))
    rows.drop(Drop((1,)))
    with pytest.raises(OutOfStep):
        rows.caches(Forward(1, (1,), (0,), ((1,),), 1))


EACH_TIME = {"mamba", "jamba", "rwkv7", "kimi-linear"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.id, marks=() if case.id in EACH_TIME else pytest.mark.long) for case in STATE],
)
def test_rows_of_families_with_a_state_are_the_same_in_all_ranks(case: Any) -> None:
    """Rows of different lengths, of which a shorter one's state must not take in what it is filled up with."""
    model = made(case)[0]
    greedy = SamplingParams(temperature=0, max_tokens=6)
    items = [prepared(number, words(9 + 14 * number, number), sampling=greedy) for number in range(3)]
    alone = [answer(Bench(model).run(item)[item.request]) for item in items]
    bench = GroupBench(model)
    together = bench.run(*items)
    assert [answer(together[item.request]) for item in items] == alone
    warm = SamplingParams(temperature=1.0, seed=3, max_tokens=6, n=2)
    bench.run(prepared(3, [*words(37, 2), 5, 6], words(4), sampling=warm))
    bench.compare()


@pytest.mark.parametrize("case", STATE, ids=lambda case: str(case.id))
def test_families_that_mlx_lm_does_not_divide_are_refused(case: Any) -> None:
    model, group = made(case)[0], SimpleNamespace(size=lambda: 2, rank=lambda: 0)
    kind = type(model).__module__.rpartition(".")[2]
    if hasattr(model, "shard") or hasattr(model.model if "model" in model else None, "pipeline"):
        return
    with pytest.raises(UnsupportedModel, match=f"tiny cannot be divided among 2 ranks.*of type {kind}"):
        cut(model, {"model_type": kind}, group, "tiny")
