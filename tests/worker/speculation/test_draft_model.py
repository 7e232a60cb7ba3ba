"""A draft model guesses, the large one decides: the same answers in fewer passes, and no guess from other tokens."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import msgspec
import pytest

from squish.errors import ConfigError
from squish.generation import GenerationEvent, SamplingParams
from squish.ipc.frames import Cancel
from squish.worker.speculation import draft_model
from squish.worker.speculation.draft_model import DraftModel
from squish.worker.speculation.same_tokens import require_same_tokens
from tests.worker.byte_models import tokenizer as byte_tokenizer
from tests.worker.test_runner import VOCABULARY, Bench, answer, end, prepared, tiny_recurrent, tokenizer, words
from tests.worker.test_runner import tiny_llama as plain_llama
from tests.worker.test_same_answer import answer_of, exact_cache, on_cpu, replaced, tiny_gemma3, tiny_llama

__all__ = ["replaced"]  # a fixture

GREEDY = SamplingParams(temperature=0, max_tokens=60, logit_bias=((96, -100.0),), logprobs=True)
PLAIN = SamplingParams(temperature=0, max_tokens=60, logprobs=True)
SEEDED = msgspec.structs.replace(GREEDY, temperature=0.8, seed=5)


def guessed(events: list[GenerationEvent]) -> tuple[int, int]:
    timings = end(events).timings
    return timings.draft_tokens, timings.accepted_tokens


@pytest.fixture
def llama() -> Any:
    return on_cpu(tiny_llama(), quantized=True, exact=False)


def test_a_model_that_guesses_for_itself_is_always_right(llama: Any) -> None:
    alone = Bench(llama, exact_cache(llama)).run(prepared(1, words(30), sampling=PLAIN))[1]
    bench = Counting(llama, exact_cache(llama), draft=DraftModel(llama, VOCABULARY, "x"))
    events = bench.run(prepared(1, words(30), sampling=PLAIN))[1]
    assert answer_of(events) == answer_of(alone)
    drafted, accepted = guessed(events)
    assert drafted == accepted > 45
    assert bench.passes < 15


@pytest.mark.parametrize(
    ("make", "lookup"),
    [
        (tiny_llama, True),
        pytest.param(tiny_gemma3, False, marks=pytest.mark.long),
        pytest.param(tiny_llama, False, marks=pytest.mark.long),
        pytest.param(tiny_gemma3, True, marks=pytest.mark.long),
    ],
)
def test_another_model_changes_no_answer(
    make: Callable[[], Any], lookup: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows come and go, guesses fail or hold; long prompts are read in pieces."""
    monkeypatch.setattr(draft_model, "_CHUNK", 16)
    model = on_cpu(make(), quantized=True, exact=False)
    draft = DraftModel(on_cpu(tiny_llama(), quantized=True, exact=False), VOCABULARY, "x")
    chance = random.Random(2)
    kinds = [GREEDY, SEEDED, PLAIN]
    items = [prepared(n, words(chance.randint(1, 70), start=n), sampling=kinds[n % 3]) for n in range(9)]
    alone = {item.request: Bench(model, exact_cache(model)).run(item)[item.request] for item in items}
    bench = Bench(model, exact_cache(model), lookup=lookup, draft=draft)
    drafted = 0
    for count in (1, 2, 4, 6):
        chosen = chance.sample(items, count)
        events = bench.run(*chosen)
        for item in chosen:
            assert answer(events[item.request]) == answer(alone[item.request])
            drafted += guessed(events[item.request])[0]
    assert drafted > 10
    assert draft._rows == {}


def test_a_cancelled_row_is_forgotten(llama: Any) -> None:
    draft = DraftModel(llama, VOCABULARY, "x")
    bench = Bench(llama, exact_cache(llama), draft=draft)
    bench.fail_step = lambda: bench._inbox.put(Cancel(1)) if bench.forwarded > 50 else None
    bench.run(prepared(1, words(30), sampling=msgspec.structs.replace(GREEDY, max_tokens=500)))
    assert draft._rows == {}


@pytest.mark.parametrize("fused", [True, False])
def test_it_goes_back_to_where_a_guess_was_wrong(fused: bool) -> None:
    """What it guesses after wrong turns is what it would have guessed at once."""
    model = on_cpu(tiny_llama(), quantized=True, exact=False) if fused else plain_llama()
    draft, tokens = DraftModel(model, VOCABULARY, "x"), words(20)
    for turn in range(4):
        draft.continuation(1, tokens, 5)
        tokens = [*tokens, 3 + turn, 9]
    assert draft.continuation(1, tokens, 5) == DraftModel(model, VOCABULARY, "x").continuation(1, tokens, 5)


def test_windows_that_have_moved_on_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft_model, "_CHUNK", 1000)
    model = on_cpu(tiny_gemma3(), quantized=True, exact=False)
    draft, tokens = DraftModel(model, VOCABULARY, "x"), words(250)
    for turn in range(12):
        draft.continuation(1, tokens, 7)
        tokens = [*tokens, *words(5, start=turn)]
        fresh = DraftModel(model, VOCABULARY, "x")
        assert draft.continuation(1, tokens, 3) == fresh.continuation(1, tokens, 3)


def test_a_token_that_the_large_model_lacks_is_never_guessed() -> None:
    model = plain_llama()
    draft = DraftModel(model, 4, "x")
    assert all(token < 4 for start in range(20) for token in draft.continuation(start, words(9, start=start), 5))


def scripted(draft: DraftModel, says: list[int], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a draft model find these likeliest, one after the other; how many tokens it reads each time."""
    reads, left = list[int](), list(says)

    def read(reading: Any, tokens: list[int]) -> mx.array:
        reads.append(len(tokens))
        reading.tokens += tokens
        likeliest = left.pop(0)
        return mx.array([float(token == likeliest) for token in range(VOCABULARY)])

    monkeypatch.setattr(draft, "_read", read)
    monkeypatch.setattr(draft_model, "_trim", lambda cache, count: True)
    return reads


def test_a_guess_ends_before_a_token_that_the_large_model_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    draft = DraftModel(plain_llama(), 4, "x")
    reads = scripted(draft, [1, 4, 2], monkeypatch)
    assert draft.continuation(1, words(9), 5) == [1]
    assert reads == [9, 1]


def test_a_guess_is_as_long_as_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    draft = DraftModel(plain_llama(), VOCABULARY, "x")
    reads = scripted(draft, [3, 5, 6, 7], monkeypatch)
    assert draft.continuation(1, words(9), 0) == [] and draft._rows == {}
    assert draft.continuation(1, words(9), 1) == [3]
    assert draft.continuation(1, [*words(9), 3], 3) == [5, 6, 7]
    assert reads == [9, 1, 1, 1]


def test_a_prompt_is_read_in_pieces_before_anything_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft_model, "_CHUNK", 16)
    draft = DraftModel(plain_llama(), VOCABULARY, "x")
    reads = scripted(draft, [0, 7, 8], monkeypatch)
    assert [draft.continuation(1, words(32), 1) for _ in range(2)] == [[], [7]]
    assert draft.continuation(2, words(16), 1) == [8]
    assert reads == [16, 16, 16]


@pytest.mark.parametrize("fused", [True, False])
def test_what_was_read_is_not_read_again(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_cpu(tiny_llama(), quantized=True, exact=False) if fused else plain_llama()
    draft, reads = DraftModel(model, VOCABULARY, "x"), list[int]()
    read = draft._read

    def counted(reading: Any, tokens: list[int]) -> mx.array:
        reads.append(len(tokens))
        return read(reading, tokens)

    monkeypatch.setattr(draft, "_read", counted)
    guessed = draft.continuation(1, words(20), 3)
    wrong = (guessed[0] + 1) % VOCABULARY
    draft.continuation(1, [*words(20), wrong, 9], 1)
    assert reads == [20, 1, 1, 2]


def test_a_model_with_states_cannot_guess() -> None:
    with pytest.raises(ConfigError, match="lfm cannot be a draft model here"):
        DraftModel(tiny_recurrent(), VOCABULARY, "lfm")


def test_models_with_other_tokens_are_refused() -> None:
    require_same_tokens(tokenizer(), tokenizer(), "large", "small")
    with pytest.raises(ConfigError, match=r"small cannot guess for large, .* 0 is '.+' there and 'w0' here"):
        require_same_tokens(tokenizer(), byte_tokenizer(), "large", "small")
    more = SimpleNamespace(eos_token_ids={2}, get_vocab=lambda: {"a": 0, "b" * 50: 1, "c": 2})
    less = SimpleNamespace(eos_token_ids={2}, get_vocab=lambda: {"a": 0, "c": 2})
    with pytest.raises(ConfigError, match=rf"1 do; 1 is missing there and '{'b' * 40}' here\."):
        require_same_tokens(more, less, "large", "small")
    with pytest.raises(ConfigError, match=rf"1 do; 1 is '{'b' * 40}' there and missing here\."):
        require_same_tokens(less, more, "large", "small")
    endless = SimpleNamespace(eos_token_ids=set(), get_vocab=less.get_vocab)
    require_same_tokens(endless, endless, "large", "small")
    other = tokenizer()
    other._eos_token_ids = {3}
    with pytest.raises(ConfigError, match=r"other ones end an answer\."):
        require_same_tokens(tokenizer(), other, "large", "small")


class Counting(Bench):
    """passes: of the large model."""

    passes = 0

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        self.passes += 1
        return super().__call__(tokens, cache)
