"""A rank above 0 holds the rows that rank 0 holds, whatever the batch does with them: both are in this process here."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from squish.generation import Finished, SamplingParams
from squish.ipc.frames import Cancel
from squish.ipc.group_frames import Drop, Fork, Forward, Operation
from squish.worker.cpu.fusion import fuse
from squish.worker.group.follower import Follower
from squish.worker.group.leader import Leading
from squish.worker.group.rows import OutOfStep, Rows
from squish.worker.group.watch import Watch
from squish.worker.runner import Runner
from tests.worker.cpu.opened import native
from tests.worker.test_runner import (
    Bench,
    prepared,
    repeatable,
    tiny_llama,
    tiny_recurrent,
    tiny_rotating,
    tokenizer,
    words,
)

__all__ = ["repeatable"]


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

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        leads, follows = Alone(), Alone()
        self.led, self.followed = Spoken(model, leads), Spoken(model, follows)
        self.follower = Follower(self.followed, follows)  # type: ignore[arg-type]
        self.passes: list[Forward] = []
        leading = Leading(self.led, leads, self._apply, Watch(2, 0.0))  # type: ignore[arg-type]
        self._runner = Runner(leading, tokenizer(), 2048, self.prefix, self._inbox, self._take, group=leading)

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
    assert fuse(model, native())
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
