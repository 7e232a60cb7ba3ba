"""The order of passes: the end of a prompt and its first token are one, which goes before the next step of others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest

from squish.generation import Finished, SamplingParams, TextDelta
from squish.ipc.frames import Cancel, Events, FromWorker
from squish.worker.batch import Batch
from squish.worker.pace import PrefillPace
from tests.worker.test_runner import end, prepared, words
from tests.worker.test_same_answer import Company, greedy, on_cpu, replaced, tiny_gemma3, tiny_llama, tiny_qwen3

__all__ = ["replaced"]  # a fixture


class Passes(Company):
    """shapes: (rows, tokens) of each pass of the model. first_words: how many passes there were before each request
    had any."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.shapes: list[tuple[int, ...]] = []
        self.first_words: dict[int, int] = {}

    def _take(self, frame: FromWorker) -> None:
        super()._take(frame)
        for request, event in frame.items if isinstance(frame, Events) else ():
            if isinstance(event, TextDelta | Finished):
                self.first_words.setdefault(request, len(self.shapes))

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        self.shapes.append(tokens.shape)
        return super().__call__(tokens, cache)


@pytest.fixture
def llama() -> Any:
    return on_cpu(tiny_llama(), quantized=True, exact=False)


def test_a_prompt_and_its_first_token_are_one_pass(llama: Any) -> None:
    bench = Passes(llama)
    bench.together([prepared(1, words(40), sampling=greedy(3))])
    assert bench.shapes[:3] == [(1, 40), (1, 1), (1, 1)]
    bench.shapes.clear()
    [events] = bench.run(prepared(2, [*words(40), 7, 8, 9], sampling=greedy(1))).values()
    assert end(events).usage.cached_tokens == 40
    assert bench.shapes[0] == (1, 3)


def test_a_long_prompt_ends_in_one_pass(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrefillPace, "step_size", lambda self, decoding: 64)
    bench = Passes(llama)
    bench.together([prepared(1, words(150), sampling=greedy(2))])
    assert bench.shapes[:3] == [(1, 64), (1, 64), (1, 22)]


def test_who_comes_late_goes_before_the_next_step_of_the_others(llama: Any) -> None:
    bench = Passes(llama)
    late = prepared(2, words(30, start=5), sampling=greedy(4))
    bench.fail_step = lambda: bench._inbox.put(late) if len(bench.shapes) == 4 else None
    bench.run(prepared(1, words(20), sampling=greedy(12)), later=(late,))
    assert bench.shapes[:6] == [(1, 20), (1, 1), (1, 1), (1, 1), (1, 30), (2, 1)]


def test_rows_of_different_lengths_share_the_pass(llama: Any) -> None:
    bench = Passes(llama)
    bench.run(*(prepared(number, words(length), sampling=greedy(4)) for number, length in enumerate((3, 30, 17))))
    assert bench.shapes[:2] == [(3, 30), (3, 1)]


def test_one_whose_other_choices_wait_goes_the_long_way(llama: Any) -> None:
    """They start from the cache of all but the last token."""
    bench = Passes(llama)
    bench.run(prepared(1, words(30), sampling=SamplingParams(temperature=0, n=2, max_tokens=3)))
    assert bench.shapes[0] == (1, 29)


def test_so_does_a_model_whose_caches_cannot_be_cut() -> None:
    """The snapshot before the last token is what the next turn goes on from."""
    bench = Passes(on_cpu(tiny_gemma3(), quantized=True, exact=False))
    bench.together([prepared(1, words(30), sampling=greedy(2))])
    assert bench.shapes[0] == (1, 29)


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen3])
def test_answers_are_those_of_the_order_of_mlx_lm(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_cpu(make(), quantized=True, exact=False)
    items = [prepared(number, words(4 + 13 * number, start=number), sampling=greedy(10)) for number in range(6)]
    answers = Company(model).together(items)
    monkeypatch.setattr(Batch, "_fits", lambda self, at, tokens: False)
    assert Company(model).together(items) == answers
    assert len({text for text, *_ in answers.values()}) > 3


def test_who_is_cancelled_before_is_forgotten(llama: Any) -> None:
    bench = Passes(llama)
    late = prepared(2, words(300), sampling=greedy(4))

    def come_and_go() -> None:
        if len(bench.shapes) == 3:
            bench._inbox.put(late)
            bench._inbox.put(Cancel(2))

    bench.fail_step = come_and_go
    bench.run(prepared(1, words(20), sampling=greedy(12)), later=(late,))
    assert not bench._runner._batch.in_one_pass


def came(bench: Passes, at: int, *items: Any) -> None:
    """These requests come after so many passes."""

    def arrive() -> None:
        for each in items if len(bench.shapes) == at else ():
            bench._inbox.put(each)

    bench.fail_step = arrive


def test_who_has_been_given_a_place_does_not_wait_for_those_that_decode(llama: Any) -> None:
    """mlx-lm decodes 32 rows at most; how many run is for the front process to say."""
    bench = Passes(llama)
    late = prepared(99, words(30, start=5), sampling=greedy(2))
    flood = [prepared(number, words(8, start=number), sampling=greedy(20)) for number in range(40)]
    came(bench, 14, late)
    bench.run(*flood, later=(late,))
    assert (40, 1) in bench.shapes
    assert (1, 30) in bench.shapes[14:16]


@pytest.mark.parametrize(("length", "passes"), [(30, 1), (300, 10)])
def test_long_prompts_of_one_account_do_not_hold_up_another(
    llama: Any, length: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, 300 tokens are five steps of 64; beside one prompt of another account they are at most twice as many."""
    monkeypatch.setattr(PrefillPace, "step_size", lambda self, decoding: 64)
    bench = Passes(llama)
    flood = [
        replace(prepared(number, words(900, start=number), sampling=greedy(2)), account="a") for number in range(9)
    ]
    late = replace(prepared(99, words(length, start=77), sampling=greedy(2)), account="b")
    came(bench, 3, late)
    bench.run(*flood, later=(late,))
    assert bench.first_words[99] - 3 <= passes + 2
    assert max(rows * tokens for rows, tokens in bench.shapes) <= 128
