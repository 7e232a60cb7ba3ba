"""Guessing changes no answer: not its text, not a bit of its log-probabilities, not what a seed draws."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import mlx.core as mx
import msgspec
import pytest

from squish.generation import GenerationEvent, ResponseFormat, SamplingParams, TextPrompt
from squish.worker.speculation import caches
from squish.worker.speculation.budget import Budget
from squish.worker.speculation.decoding import FEW, Decoding
from squish.worker.speculation.lookup import Lookup
from tests.worker.byte_models import ByteBench
from tests.worker.test_runner import Bench, answer, end, prepared, tiny_recurrent, tiny_rotating, words
from tests.worker.test_runner import tiny_llama as plain_llama
from tests.worker.test_same_answer import Company, answer_of, on_cpu, replaced, tiny_gemma3, tiny_llama, tiny_qwen3

__all__ = ["replaced"]  # a fixture

GREEDY = SamplingParams(temperature=0, max_tokens=60, logprobs=True, top_logprobs=3)
LONG = SamplingParams(temperature=0, max_tokens=100, logit_bias=((96, -100.0),))
KINDS = {
    "greedy": GREEDY,
    "seeded": msgspec.structs.replace(GREEDY, temperature=0.4, seed=3),
    "penalties": msgspec.structs.replace(GREEDY, repetition_penalty=1.01, frequency_penalty=0.01, repetition_window=9),
    "bias": msgspec.structs.replace(GREEDY, logit_bias=((4, 0.5), (5, -0.5)), temperature=0.3, seed=8),
    "short": msgspec.structs.replace(GREEDY, max_tokens=7),
}


def repeating(chance: random.Random) -> list[int]:
    """A prompt in which much stands twice."""
    text = [chance.randrange(1, 95) for _ in range(chance.randint(5, 60))]
    return [*text, *text[: chance.randint(3, len(text))]]


def guessed(events: list[GenerationEvent]) -> tuple[int, int]:
    timings = end(events).timings
    return timings.draft_tokens, timings.accepted_tokens


@pytest.mark.parametrize(
    "make", [tiny_gemma3, *(pytest.param(each, marks=pytest.mark.long) for each in (tiny_llama, tiny_qwen3))]
)
def test_answers_are_the_same_to_the_bit_with_and_without(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixes of 1 to 6 requests, more than the few that may guess, coming and going; windows of 96 tokens slide."""
    chance = random.Random(3)
    model = on_cpu(make(), quantized=True, exact=False)
    kinds = itertools.cycle(KINDS.values())
    items = [prepared(number, repeating(chance), sampling=next(kinds)) for number in range(20)]
    answers = {item.request: Company(model).run(item)[item.request] for item in items}
    items = [item for item in items if answer(answers[item.request])]
    alone = {item.request: answer_of(answers[item.request]) for item in items}
    let_guess_well(monkeypatch, [[*item.tokens[0], *tokens_of(alone[item.request][0])] for item in items], chance)
    drafted = accepted = 0
    for mix in range(10):
        company = Company(model, chance=chance, lookup=True)
        chosen = chance.sample(items, chance.randint(1, FEW + 2))
        events = company.run(*chosen)
        for item in chosen:
            assert answer_of(events[item.request]) == alone[item.request], f"mix {mix}, request {item.request}"
            more, right = guessed(events[item.request])
            drafted, accepted = drafted + more, accepted + right
    assert drafted > accepted > 100, "guesses must have held, and failed"


def tokens_of(text: str) -> list[int]:
    return [int(word[1:]) for word in text.split()]


def let_guess_well(monkeypatch: pytest.MonkeyPatch, texts: list[list[int]], chance: random.Random) -> None:
    """Guesses are what will come, but for every sixth token or so. texts: prompts with their answers."""

    def continuation(row: Lookup, length: int) -> list[int]:
        known = row._tokens[: len(row)].tolist()
        follows = next((text[len(known) :] for text in texts if text[: len(known)] == known), [])
        return [token if chance.random() < 0.85 else 1 + token % 90 for token in follows[:length]]

    monkeypatch.setattr(Lookup, "continuation", continuation)
    monkeypatch.setattr(Budget, "length", property(lambda _: chance.choice([0, 1, 3, 7])))


def test_rows_that_share_mlx_lms_caches_go_back_each_to_its_own_length(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(4)
    model = plain_llama()
    items = [prepared(number, repeating(chance), sampling=LONG) for number in range(4)]
    alone = {item.request: answer(Bench(model).run(item)[item.request]) for item in items}
    texts = [[*item.tokens[0], *tokens_of(alone[item.request])] for item in items]
    let_guess_well(monkeypatch, texts, chance)
    for count in (1, 2, 3, 4):
        events = Bench(model, lookup=True).run(*items[:count])
        assert all(answer(events[item.request]) == alone[item.request] for item in items[:count])
        assert all(guessed(events[item.request])[1] > 50 for item in items[:count])


@pytest.mark.parametrize("make", [tiny_rotating, tiny_recurrent])
def test_where_a_cache_cannot_go_back_nothing_is_guessed(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    item = prepared(1, words(30), sampling=LONG)
    alone = answer(Bench(model).run(item)[1])
    let_guess_well(monkeypatch, [[*words(30), *tokens_of(alone)]], random.Random(1))
    events = Bench(model, lookup=True).run(item)[1]
    assert (answer(events), guessed(events)) == (alone, (0, 0))


def test_what_repeats_itself_takes_a_third_of_the_passes(llama: Any) -> None:
    """This model falls into a loop, as small ones do."""
    passes = {lookup: passes_of(llama, words(30), lookup=lookup) for lookup in (False, True)}
    assert passes[True] * 3 <= passes[False]


@pytest.mark.parametrize("tokens", [30, 300])
def test_guesses_that_fail_cost_few_positions(llama: Any, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """At most what the credit of a row allows, though there is a guess at every token."""
    monkeypatch.setattr(Lookup, "continuation", lambda row, length: [80 + int(row._tokens[len(row) - 1]) % 7] * length)
    without, guessing = Counting(llama), Counting(llama, lookup=True)
    item = prepared(1, words(30), sampling=msgspec.structs.replace(LONG, max_tokens=tokens))
    alone, events = without.run(item)[1], guessing.run(item)[1]
    assert answer(events) == answer(alone)
    drafted, accepted = guessed(events)
    assert accepted <= 2
    assert 2 <= drafted <= 2 + tokens / 16 + 3 * accepted
    assert guessing.forwarded - without.forwarded <= drafted
    assert guessing.passes <= without.passes


def test_an_answer_that_repeats_nothing_pays_for_no_search(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step asks a set, calls the same few functions however long the text is, and looks at no cache again."""
    searches, looks, calls = Mock(return_value=[]), Mock(side_effect=caches.can_rewind), list[int]()
    monkeypatch.setattr("squish.worker.speculation.lookup._continued", searches)
    monkeypatch.setattr(caches, "can_rewind", looks)
    own = Decoding._guesses

    def counted(decoding: Decoding) -> list[list[int]]:
        calls.append(0)

        def count(_frame: Any, event: str, _argument: Any) -> None:
            calls[-1] += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            return own(decoding)
        finally:
            sys.setprofile(None)

    monkeypatch.setattr(Decoding, "_guesses", counted)
    sampling = msgspec.structs.replace(LONG, temperature=2.0, seed=1, max_tokens=200)
    events = Bench(llama, lookup=True).run(prepared(1, words(30), sampling=sampling))[1]
    assert (searches.call_count, looks.call_count, guessed(events)) == (0, 1, (0, 0))
    first, second, *others = calls
    assert len(others) > 190
    assert set(others) == {second}
    assert second <= 25
    assert first > second


def test_beside_many_others_nobody_guesses(llama: Any) -> None:
    items = [prepared(number, words(30), sampling=LONG) for number in range(FEW + 1)]
    events = Bench(llama, lookup=True).run(*items)
    assert all(guessed(of)[0] == 0 for of in events.values())


def test_a_stop_string_in_the_middle_of_a_guess_ends_the_answer(llama: Any) -> None:
    whole = answer(Bench(llama).run(prepared(1, words(30), sampling=LONG))[1])
    stop = whole[70:80]
    item = prepared(1, words(30), sampling=msgspec.structs.replace(LONG, stop=(stop,)))
    events = Bench(llama, lookup=True).run(item)[1]
    assert answer(events) == whole[: whole.index(stop)]
    assert (end(events).reason, end(events).stop) == ("stop", stop)
    assert guessed(events)[1] <= end(events).usage.completion_tokens


def test_a_format_is_kept_to_and_ends_where_it_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ResponseFormat("regex", "(ab){30}c")
    sampling = msgspec.structs.replace(LONG, response_format=wanted, max_tokens=200)
    answers, passes = [], []
    for lookup in (False, True):
        mx.random.seed(5)
        bench = ByteBench(lookup=lookup)
        events = bench.run(bench.prepare(1, TextPrompt("abababababab"), sampling))[1]
        answers.append((answer(events), end(events).reason, end(events).usage))
        passes.append(bench.forwarded)
    assert answers[0] == answers[1] == ("ab" * 30 + "c", "stop", answers[0][2])
    assert guessed(events)[1] > 30


@pytest.fixture
def llama() -> Any:
    return on_cpu(tiny_llama(), quantized=True, exact=False)


def passes_of(model: Any, prompt: list[int], *, lookup: bool) -> int:
    bench = Counting(model, lookup=lookup)
    bench.run(prepared(1, prompt, sampling=msgspec.structs.replace(LONG, max_tokens=200)))
    return bench.passes


class Counting(Company):
    """passes: how often the model was run."""

    passes = 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.passes += 1
        return super().__call__(*arguments, **options)
