"""The prefix cache on its way to the disk while rows run: how much is written, by whom, and who waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlx_lm.models.cache import KVCache, make_prompt_cache

from squish.generation import SamplingParams
from squish.worker.cache import prefix
from squish.worker.cache.disk import DiskTier, NewFile, Stored
from squish.worker.cache.prefix import PrefixCache
from squish.worker.cache.saving import Saving
from squish.worker.runner import PrefixSaved, Stop
from tests.conftest import PATIENCE
from tests.worker.cache.test_prefix import filled, tokens
from tests.worker.test_runner import Bench, answer, end, prepared, tiny_llama, tiny_recurrent, tiny_rotating, words

SMALL = 4096


class Watched(DiskTier):
    """A tier that says of each piece how many steps the model had begun, and which thread writes it.

    open: unless it is set, the disk takes nothing. written: given once for each file.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "model", 1 << 30)
        self.steps = 0
        self.began: int | None = None
        self.pieces: list[tuple[int, int, int]] = []
        self.first = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.written = threading.Semaphore(0)

    def new(self, tokens: list[int], before: Stored | None = None) -> NewFile:
        self.began = self.steps
        return super().new(tokens, before)

    def write(self, new: NewFile, nbytes: int, pieces: Any) -> Stored | None:
        def watched() -> Iterator[memoryview]:
            for piece in pieces:
                self.open.wait()
                self.pieces.append((self.steps, len(piece), threading.get_ident()))
                self.first.set()
                yield piece

        stored = super().write(new, nbytes, watched())
        self.written.release()
        return stored


def bench(folder: Path, model: Any) -> tuple[Bench, Watched]:
    tier = Watched(folder)
    made: list[Bench] = []
    known = PrefixCache(1 << 30, make_prompt_cache(model), tier, wake=lambda: made[0]._inbox.put(PrefixSaved()))
    made.append(Bench(model, known))
    return made[0], tier


def test_with_each_step_a_piece_is_written_and_never_by_the_thread_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a row that has ended, while another one goes on."""
    monkeypatch.setattr("squish.worker.cache.saving.PIECE", SMALL)
    monkeypatch.setattr("squish.worker.cache.prefix.PIECE", SMALL)
    running, tier = bench(tmp_path, tiny_llama())

    def step() -> None:
        tier.steps += 1
        if tier.began is not None:  # a row still runs, so this only goes on if its writing does not wait for the end
            assert tier.first.wait(PATIENCE)

    running.fail_step = step
    goes_on = SamplingParams(temperature=0, max_tokens=80, logit_bias=((96, -100),))
    running.run(prepared(1, words(600)), prepared(2, words(20), sampling=goes_on))
    assert not running.failures
    assert threading.get_ident() not in {thread for _, _, thread in tier.pieces}
    during = [(steps, size) for steps, size, _ in tier.pieces if steps < tier.steps]
    assert during
    assert tier.began is not None
    sent = 0
    for steps, size in during:
        sent += size
        assert sent <= SMALL * (steps - tier.began + 1)


def test_steps_alone_bring_everything_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squish.worker.cache.saving.PIECE", SMALL)
    monkeypatch.setattr(prefix, "PIECE", SMALL)
    tier = Watched(tmp_path)
    known = PrefixCache(1 << 30, [KVCache()], tier)
    known.put(tokens(300), filled(300))
    known.tend(busy=True)
    while not tier.written.acquire(timeout=0.005):
        known.tend(busy=True)
    known.save(PATIENCE)
    assert max(size for _, size, _ in tier.pieces) == SMALL
    assert [held for _, held in tier.index()] == [tokens(300)[:256]]


def test_a_disk_that_hangs_keeps_no_answer_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squish.worker.runner._SAVE_SECONDS", 0)
    model = tiny_llama()
    running, tier = bench(tmp_path, model)
    tier.open.clear()
    for number in range(1, 4):
        prompt = words(300, start=number)
        assert answer(running.run(prepared(1, prompt))[1]) == answer(Bench(model).run(prepared(1, prompt))[1])
    assert tier.pieces == []
    tier.open.set()
    running.prefix.save(PATIENCE)


def test_at_the_end_the_disk_has_the_seconds_that_are_left_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squish.worker.cache.saving.PIECE", SMALL)
    tier = Watched(tmp_path)
    tier.open.clear()
    known = PrefixCache(1 << 30, [KVCache()], tier)
    known.put(tokens(300), filled(300))
    now, waited = 100.0, list[float]()

    def wait(_: Saving, seconds: float) -> None:
        nonlocal now
        waited.append(seconds)
        now += 2.5

    with monkeypatch.context() as patched:
        patched.setattr(Saving, "wait", wait)
        patched.setattr(prefix, "time", SimpleNamespace(monotonic=lambda: now))
        known.save(5)
    assert waited == [5, 2.5]
    tier.open.set()
    known.save(PATIENCE)
    assert not known.unsaved
    assert tier.index() == [], "what was given up leaves nothing"


@pytest.mark.parametrize("make", [tiny_llama, tiny_rotating, tiny_recurrent])
def test_what_was_said_is_known_to_the_next_process_though_nobody_ended_this_one(
    tmp_path: Path, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squish.worker.runner._SAVE_SECONDS", 0)
    model = make()
    running, tier = bench(tmp_path, model)
    prompts = [words(400), words(500, start=3)]

    def stop_when_written() -> None:
        for _ in prompts:
            tier.written.acquire(timeout=PATIENCE)
        running._inbox.put(Stop())

    for number, prompt in enumerate(prompts):
        running._inbox.put(prepared(number, prompt))
    stopper = threading.Thread(target=stop_when_written)
    stopper.start()
    running._runner.run()
    stopper.join()
    running.prefix.save(0)

    for number, prompt in enumerate(prompts):
        cold, warm = Bench(model), bench(tmp_path, model)[0]
        expected, events = cold.run(prepared(number, prompt)), warm.run(prepared(number, prompt))
        assert answer(events[number]) == answer(expected[number])
        cached = end(events[number]).usage.cached_tokens
        assert cached == (len(prompt) - 1) // 64 * 64
        assert warm.forwarded == cold.forwarded - cached
