"""How a row's tokens are chosen, in the batch: several choices of one prompt, biases, penalties, log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
import pytest

from squish.errors import InvalidInput
from squish.generation import Finished, GenerationEvent, SamplingParams, TextDelta, TextPrompt, TokenLogprob
from squish.ipc.frames import Cancel
from squish.worker.sampling.processors import Edits, RowProcessor, edits_of
from squish.worker.sampling.samplers import Samplers
from tests.worker.byte_models import ByteBench
from tests.worker.test_runner import (
    GREEDY,
    Bench,
    answer,
    end,
    prepared,
    tiny_llama,
    tiny_recurrent,
    tiny_rotating,
    words,
)

DRAWN = SamplingParams(temperature=1, top_p=1, max_tokens=8, seed=11)


@pytest.fixture(autouse=True)
def repeatable() -> None:
    mx.random.seed(7)


def changed(sampling: SamplingParams, **fields: Any) -> SamplingParams:
    return msgspec.structs.replace(sampling, **fields)


def rows(events: list[GenerationEvent], count: int) -> list[str]:
    """The texts of all rows, each of which must have ended once."""
    ends = sorted(event.index for event in events if isinstance(event, Finished))
    assert ends == list(range(count))
    texts = [
        [event.text for event in events if isinstance(event, TextDelta) and event.index == row] for row in range(count)
    ]
    return ["".join(of_row) for of_row in texts]


@pytest.mark.parametrize("make", [tiny_llama, tiny_rotating, tiny_recurrent])
def test_choices_share_one_prefill_and_answer_as_if_alone(make: Callable[[], Any]) -> None:
    model = make()
    alone = answer(Bench(model).run(prepared(1, words(300), sampling=GREEDY))[1])
    bench = Bench(model)
    events = bench.run(prepared(1, words(300), sampling=changed(GREEDY, n=3)))[1]
    assert rows(events, 3) == [alone] * 3
    assert bench.forwarded <= 299 + 3 * (1 + GREEDY.max_tokens)
    cached = [event.usage.cached_tokens for event in events if isinstance(event, Finished)]
    assert sorted(cached) == [0, 299, 299]


def test_seeded_choices_are_those_of_the_prompt_sent_as_often() -> None:
    model = tiny_llama()
    together = rows(Bench(model).run(prepared(1, words(70), sampling=changed(DRAWN, n=3)))[1], 3)
    apart = rows(Bench(model).run(prepared(1, *[words(70)] * 3, sampling=DRAWN))[1], 3)
    assert together == apart
    assert len(set(together)) == 3


@pytest.mark.parametrize("use_numpy", [True, False], ids=["numpy", "mlx"])
def test_a_seed_survives_a_failed_step(use_numpy: bool) -> None:
    model = tiny_llama()
    texts = []
    for error in (None, RuntimeError("out of luck")):
        bench = Bench(model)
        bench._runner._maker._samplers = Samplers(use_numpy)
        steps = iter([None] * 5 + [error])

        def fail(steps: Iterator[Exception | None] = steps) -> None:
            if found := next(steps, None):
                raise found

        bench.fail_step = fail
        texts.append(answer(bench.run(prepared(1, words(70), sampling=DRAWN))[1]))
        assert not bench.failures
    assert texts[0] == texts[1]


def test_rows_are_numbered_prompt_by_prompt() -> None:
    model = tiny_llama()
    prompts = [words(70), words(1, start=5), words(90, start=2)]
    alone = [answer(Bench(model).run(prepared(1, prompt))[1]) for prompt in prompts]
    events = Bench(model).run(prepared(1, *prompts, sampling=changed(GREEDY, n=2)))[1]
    assert rows(events, 6) == [text for text in alone for _ in range(2)]


def test_choices_that_have_not_begun_are_cancelled_and_survive_a_failed_step() -> None:
    bench = Bench(tiny_llama())
    events = bench.run(prepared(1, words(900), sampling=changed(GREEDY, n=4)), Cancel(1))[1]
    assert rows(events, 4) == [""] * 4
    steps = iter([None, RuntimeError("out of luck")])

    def fail() -> None:
        if error := next(steps, None):
            raise error

    bench = Bench(tiny_llama())
    bench.fail_step = fail
    again = bench.run(prepared(2, words(900), sampling=changed(GREEDY, n=4)))[2]
    assert not bench.failures
    assert len(set(rows(again, 4))) == 1


def test_a_bias_forces_and_forbids_a_token() -> None:
    bench = Bench(tiny_llama())
    free = answer(bench.run(prepared(1, words(40)))[1]).split()
    forced = bench.run(prepared(2, words(40), sampling=changed(GREEDY, logit_bias=((5, 100.0),))))[2]
    assert answer(forced).split() == ["w5"] * GREEDY.max_tokens
    forbidden = tuple((int(word[1:]), -100.0) for word in set(free))
    other = answer(bench.run(prepared(3, words(40), sampling=changed(GREEDY, logit_bias=forbidden)))[3])
    assert not set(other.split()) & set(free)


@pytest.mark.parametrize("prompt", ["a", "a ", " "])
def test_an_answer_does_not_repeat_the_end_of_its_prompt(prompt: str) -> None:
    bench = ByteBench()
    [b] = bench.tokenizer.encode("b")
    forced = changed(GREEDY, logit_bias=((b, 100.0),))
    assert answer(bench.run(bench.prepare(1, TextPrompt(prompt), forced))[1]) == "b" * GREEDY.max_tokens


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_a_penalty_works_against_repetition(penalty: str) -> None:
    bench = Bench(tiny_llama())
    love = {"logit_bias": ((5, 1.5), (6, 1.0)), "max_tokens": 24}
    without = answer(bench.run(prepared(1, words(40), sampling=changed(GREEDY, **love)))[1]).split()
    against = changed(GREEDY, **love, **{penalty: 2.0})
    held = answer(bench.run(prepared(2, words(40), sampling=against))[2]).split()
    assert len(set(held)) > len(set(without))


def test_the_repetition_penalty_sees_the_cached_part_of_the_prompt() -> None:
    bench = Bench(tiny_llama())
    prompt = [5] * 256 + [40] * 44  # w5 stands in the cached part, w95 nowhere; both are liked, w5 a little more
    likes = changed(GREEDY, max_tokens=1, logit_bias=((5, 3.0), (95, 2.8)))
    penalized = changed(likes, repetition_penalty=10.0)
    cold = bench.run(prepared(1, prompt, sampling=penalized))[1]
    warm = bench.run(prepared(2, prompt, sampling=penalized))[2]
    assert (end(cold).usage.cached_tokens, end(warm).usage.cached_tokens) == (0, 256)
    assert (answer(cold), answer(warm)) == ("w95", "w95")
    assert answer(bench.run(prepared(3, prompt, sampling=likes))[3]) == "w5"


def test_a_repetition_penalty_can_look_back_on_the_latest_tokens_only() -> None:
    params = SamplingParams(repetition_penalty=2.0, repetition_window=3)
    made = edits_of(params, [1, 2, 3, 4, 4])
    assert made

    def penalized() -> set[int]:
        row = np.ones(10, dtype=np.float32)
        made.numpy(row)
        assert np.array_equal(row, np.array(made.mlx(mx.array(np.ones((1, 10), dtype=np.float32))))[0])
        return set(np.flatnonzero(row < 1).tolist())

    seen = [penalized()]
    for token in (5, 6, 4, 3):
        made.take(token)
        seen.append(penalized())
    assert seen == [{3, 4}, {4, 5}, {4, 5, 6}, {4, 5, 6}, {3, 4, 6}]
    whole = edits_of(SamplingParams(repetition_penalty=2.0), [1, 2, 3])
    assert whole
    for token in (5, 6, 7):
        whole.take(token)
    row = np.ones(10, dtype=np.float32)
    whole.numpy(row)
    assert set(np.flatnonzero(row < 1).tolist()) == {1, 2, 3, 5, 6, 7}


def test_both_backends_edit_logits_alike() -> None:
    params = SamplingParams(
        repetition_penalty=1.5,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        logit_bias=((3, 2.0), (9, -4.0), (500, 1.0)),
    )
    logits = np.random.default_rng(1).normal(size=(1, 20)).astype(np.float32)

    def edits() -> Edits:
        made = edits_of(params, [1, 2, 3, 2])
        assert made
        for token in (4, 4, 2):
            made.take(token)
        return made

    with_numpy = logits.copy()
    edits().numpy(with_numpy[0])
    assert np.allclose(with_numpy, np.array(edits().mlx(mx.array(logits))), atol=1e-6)
    assert with_numpy[0, 9] == pytest.approx(logits[0, 9] - 4)
    scaled = logits[0, 4] / 1.5 if logits[0, 4] > 0 else logits[0, 4] * 1.5
    assert with_numpy[0, 4] == pytest.approx(scaled - 0.5 - 2 * 0.25)
    assert np.array_equal(with_numpy[0, 10:], logits[0, 10:])


def test_rows_that_ask_for_nothing_have_no_processor() -> None:
    bench = Bench(tiny_llama())
    made: list[Any] = []
    bench.fail_step = lambda: made.extend(row.processor for row in bench._runner._rows.values())
    bench.run(prepared(1, words(40)), prepared(2, words(40), sampling=DRAWN))
    assert made
    assert set(made) == {None}


def test_a_processor_that_fails_ends_its_own_request_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    alone = answer(Bench(model).run(prepared(1, words(40)))[1])
    taken: list[int] = []

    def stumble(self: RowProcessor, token: int) -> None:
        taken.append(token)
        if len(taken) == 3:
            raise ArithmeticError("three is too much")

    monkeypatch.setattr(RowProcessor, "_take", stumble)
    bench = Bench(model)
    failing = changed(GREEDY, presence_penalty=1.0)
    events = bench.run(prepared(1, words(40)), prepared(2, words(40), words(50), sampling=failing))
    assert answer(events[1]) == alone
    [failed] = bench.failures
    assert failed.request == 2
    assert "three is too much" in failed.failure.message
    assert end(bench.run(prepared(3, words(40)))[3]).reason in ("length", "stop")


def logprobs(events: list[GenerationEvent]) -> list[TokenLogprob]:
    """All entries of a row, of which every delta's must be its text."""
    entries: list[TokenLogprob] = []
    for event in events:
        if isinstance(event, TextDelta):
            assert b"".join(entry.bytes for entry in event.logprobs) == event.text.encode()
            entries += event.logprobs
    return entries


@pytest.mark.parametrize("use_numpy", [True, False], ids=["numpy", "mlx"])
def test_log_probabilities_come_with_their_tokens(use_numpy: bool) -> None:
    bench = Bench(tiny_llama())
    bench._runner._use_numpy = use_numpy
    asked = changed(GREEDY, logprobs=True, top_logprobs=5)
    events = bench.run(prepared(1, words(40), sampling=asked), prepared(2, words(40)))
    assert answer(events[1]) == answer(events[2])
    entries = logprobs(events[1])
    assert len(entries) == len(answer(events[1]).split())
    for entry in entries:
        values = [likely.logprob for likely in entry.top]
        assert values == sorted(values, reverse=True)
        assert (len(values), entry.top[0].logprob) == (5, entry.logprob)  # greedy takes the likeliest
        assert sum(map(math.exp, values)) <= 1 + 1e-5
        assert entry.top[0].token.strip() == entry.token.strip()
    assert not any(event.logprobs for event in events[2] if isinstance(event, TextDelta))


def test_log_probabilities_of_the_whole_vocabulary_add_up() -> None:
    bench = ByteBench()
    keep = bench.tokenizer.encode("abcdefghij")
    banned = tuple((token, -100.0) for token in range(261) if token not in keep)
    asked = SamplingParams(
        temperature=1, top_p=1, seed=2, max_tokens=12, logprobs=True, top_logprobs=10, logit_bias=banned
    )
    events = bench.run(bench.prepare(1, TextPrompt("x"), asked))[1]
    for entry in logprobs(events):
        assert sum(math.exp(likely.logprob) for likely in entry.top) == pytest.approx(1, abs=1e-4)
        assert entry.logprob in [likely.logprob for likely in entry.top]


@pytest.mark.parametrize("stop", ["cd", "c", "é", "never"])
def test_log_probabilities_wait_for_text_that_is_held_back(stop: str) -> None:
    bench = ByteBench()
    keep = bench.tokenizer.encode("abcdé")
    banned = tuple((token, -100.0) for token in range(261) if token not in keep)
    asked = SamplingParams(
        temperature=1, top_p=1, seed=2, max_tokens=60, logprobs=True, logit_bias=banned, stop=(stop, "abab")
    )
    plain = changed(asked, logprobs=False)
    events = bench.run(bench.prepare(1, TextPrompt("x"), asked), bench.prepare(2, TextPrompt("x"), plain))
    assert b"".join(entry.bytes for entry in logprobs(events[1])) == answer(events[1]).encode()
    assert answer(events[1]) == answer(events[2])
    assert stop not in answer(events[1])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_window": -1}, "repetition_window"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": math.nan}, "frequency_penalty"),
        ({"logit_bias": ((1, 101.0),)}, "logit_bias"),
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        SamplingParams(**fields)
    assert refused.value.param == param


def test_a_bias_for_a_token_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        ByteBench().prepare(1, TextPrompt("x"), SamplingParams(logit_bias=((100_000, 1.0),)))
    assert refused.value.param == "logit_bias"
