"""The engine's loop on tiny random models, in this process: each kind of cache, and what goes wrong in a step."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import gemma3_text, lfm2, llama
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from squish.generation import Finished, GenerationEvent, SamplingParams, TextDelta
from squish.ipc.frames import Cancel, Events, Failed, FromWorker
from squish.worker.cache.prefix import PrefixCache
from squish.worker.pace import PrefillPace
from squish.worker.rows import OutputPlan, Prepared
from squish.worker.runner import Inbox, Runner, Stop

VOCABULARY = 97
GREEDY = SamplingParams(temperature=0, max_tokens=8)


def tiny_llama(vocabulary: int = VOCABULARY) -> Any:
    return llama.Model(
        llama.ModelArgs(
            model_type="llama",
            hidden_size=32,
            num_hidden_layers=2,
            intermediate_size=48,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            vocab_size=vocabulary,
        )
    )


def tiny_rotating() -> Any:
    """Sliding windows of 96 tokens in all layers but one."""
    return gemma3_text.Model(
        gemma3_text.ModelArgs(
            model_type="gemma3_text",
            hidden_size=32,
            num_hidden_layers=3,
            intermediate_size=48,
            num_attention_heads=2,
            head_dim=16,
            vocab_size=VOCABULARY,
            query_pre_attn_scalar=16,
            sliding_window=96,
            sliding_window_pattern=3,
        )
    )


def tiny_recurrent() -> Any:
    """Convolution states in two layers, attention in one."""
    return lfm2.Model(
        lfm2.ModelArgs(
            model_type="lfm2",
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=2048,
            norm_eps=1e-5,
            conv_bias=False,
            conv_L_cache=3,
            block_dim=32,
            block_multiple_of=8,
            block_ffn_dim_multiplier=1.0,
            block_auto_adjust_ff_dim=False,
            block_ff_dim=48,
            full_attn_idxs=[1],
        )
    )


def tokenizer() -> TokenizerWrapper:
    words = Tokenizer(WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    return TokenizerWrapper(PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w96"), eos_token_ids=[96])


@pytest.fixture(autouse=True)
def repeatable() -> None:
    mx.random.seed(7)


class Bench:
    """A runner over a model, fed by hand. forwarded: prompt and answer tokens that the model has processed."""

    def __init__(
        self, model: Any, prefix: PrefixCache | None = None, *, lookup: bool = False, draft: Any = None
    ) -> None:
        self.forwarded = 0
        self.failures: list[Failed] = []
        self.fail_step: Callable[[], None] = lambda: None
        self._model = model
        self._events: list[tuple[int, GenerationEvent]] = []
        self._inbox: Inbox = queue.SimpleQueue()
        self.prefix = PrefixCache(1 << 30, make_prompt_cache(model)) if prefix is None else prefix
        self._runner = Runner(self, tokenizer(), 2048, self.prefix, self._inbox, self._take, lookup=lookup, draft=draft)

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        self.fail_step()
        self.forwarded += tokens.size
        return self._model(tokens, cache=cache)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def _take(self, frame: FromWorker) -> None:
        if isinstance(frame, Failed):
            self.failures.append(frame)
        elif isinstance(frame, Events):
            self._events.extend(frame.items)

    def run(self, *items: Prepared | Cancel, later: tuple[Prepared, ...] = ()) -> dict[int, list[GenerationEvent]]:
        """Work until every request has ended; its events by request. later: requests that will come by themselves."""
        self._events.clear()
        for item in items:
            self._inbox.put(item)
        awaited = [item for item in (*items, *later) if isinstance(item, Prepared)]
        expected = {item.request: len(item.tokens) * item.sampling.n for item in awaited}
        stopper = threading.Thread(target=self._stop_after, args=(expected,))
        stopper.start()
        self._runner.run()
        stopper.join()
        return {request: [event for of, event in self._events if of == request] for request in expected}

    def _stop_after(self, expected: dict[int, int]) -> None:
        """Stop when every request has failed or has as many ends as rows."""
        while True:
            ends = Counter(request for request, event in list(self._events) if isinstance(event, Finished))
            failed = {failed.request for failed in self.failures}
            if all(request in failed or ends[request] >= rows for request, rows in expected.items()):
                break
            time.sleep(0.005)
        self._inbox.put(Stop())


def prepared(request: int, *rows: list[int], sampling: SamplingParams = GREEDY) -> Prepared:
    return Prepared(request, list(rows), sampling, time.monotonic())


def answer(events: list[GenerationEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def end(events: list[GenerationEvent]) -> Finished:
    [finished] = [event for event in events if isinstance(event, Finished)]
    return finished


def words(length: int, start: int = 1) -> list[int]:
    return [(start + 7 * number) % 95 for number in range(length)]


@pytest.mark.parametrize("make", [tiny_llama, tiny_rotating, tiny_recurrent])
def test_a_warm_prefix_gives_the_cold_answer_and_is_not_computed_again(make: Callable[[], Any]) -> None:
    model = make()
    cold = Bench(model)
    reference = cold.run(prepared(1, words(300)))[1]
    warm = Bench(model, cold.prefix)
    first = warm.run(prepared(1, words(300)))[1]
    assert end(first).usage.cached_tokens == 256
    assert answer(first) == answer(reference)
    assert warm.forwarded <= 300 - 256 + 8
    longer = warm.run(prepared(2, [*words(300), *words(70, start=3)]))[2]
    assert end(longer).usage.cached_tokens == 256
    assert answer(longer) == answer(Bench(model).run(prepared(2, [*words(300), *words(70, start=3)]))[2])


@pytest.mark.parametrize("make", [tiny_llama, tiny_rotating, tiny_recurrent])
def test_many_rows_share_one_entry_each_cut_at_its_own_place(make: Callable[[], Any]) -> None:
    model = make()
    bench = Bench(model)
    bench.run(prepared(1, words(200)))
    forks = [[*words(200)[:length], *words(40, start=length)] for length in (80, 130, 195)]
    together = bench.run(*(prepared(number, fork) for number, fork in enumerate(forks)))
    for number, fork in enumerate(forks):
        assert answer(together[number]) == answer(Bench(model).run(prepared(9, fork))[9])


@pytest.mark.parametrize("make", [tiny_rotating, tiny_recurrent])
def test_conversations_with_one_system_prompt_share_its_snapshot(make: Callable[[], Any]) -> None:
    model = make()
    bench = Bench(model)
    plan = (OutputPlan(shared=150),)
    questions = [[*words(150), *words(80, start=start)] for start in (3, 11)]
    bench.run(Prepared(1, [questions[0]], GREEDY, time.monotonic(), plan))
    second = bench.run(Prepared(2, [questions[1]], GREEDY, time.monotonic(), plan))[2]
    assert end(second).usage.cached_tokens == 128
    assert answer(second) == answer(Bench(model).run(prepared(3, questions[1]))[3])


@pytest.mark.parametrize("make", [tiny_rotating, tiny_recurrent])
def test_a_history_that_is_new_as_a_whole_is_kept_after_its_messages(make: Callable[[], Any]) -> None:
    model, ending = make(), 96
    bench = Bench(model)
    messages = [[*words(300 + 20 * number, start=number), ending] for number in range(4)]
    bench.run(prepared(1, [token for message in messages for token in message]))
    for kept in (3, 2):  # as when an earlier message is written in another way
        before = [token for message in messages[:kept] for token in message]
        other = [*before, *words(70, start=kept + 7)]
        again = bench.run(prepared(2, other))[2]
        assert end(again).usage.cached_tokens == len(before) // 64 * 64
        assert answer(again) == answer(Bench(model).run(prepared(3, other))[3])
    small = Bench(model, PrefixCache(1 << 15, make_prompt_cache(model)))
    small.run(prepared(1, [token for message in messages for token in message]))
    assert len(small.prefix) <= 2, "where one takes much of the budget, none is kept on the way"


def test_an_exact_repetition_leaves_one_token_to_compute() -> None:
    bench = Bench(tiny_llama())
    first = bench.run(prepared(1, words(128)))[1]
    again = bench.run(prepared(2, words(128)))[2]
    assert (end(again).usage.cached_tokens, answer(again)) == (64, answer(first))
    whole = [*words(128), *(int(word[1:]) for word in answer(first).split())]
    assert end(bench.run(prepared(3, whole))[3]).usage.prompt_tokens == len(whole)


def test_reading_is_timed_together_with_the_pass_that_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that begins to answer in the pass that reads it is computed with its first token, and not before."""
    bench = Bench(tiny_llama())
    batch, pace = bench._runner._batch, bench._runner._pace
    decode, measured = batch.decode, pace.measured
    order: list[int | str] = []

    def decoded() -> Any:
        order.append("decode")
        return decode()

    def noted(new: int, seconds: float) -> None:
        order.append(new)
        measured(new, seconds)

    monkeypatch.setattr(batch, "decode", decoded)
    monkeypatch.setattr(pace, "measured", noted)
    bench.run(prepared(1, words(128)))
    assert set(order[::2]) == {"decode"}
    assert sum(each for each in order[1::2] if isinstance(each, int)) == 128


def test_a_step_that_throws_once_costs_nobody_an_answer() -> None:
    model = tiny_llama()
    reference = {number: Bench(model).run(prepared(number, words(90 + number)))[number] for number in range(3)}
    bench = Bench(model)
    steps = iter([None, None, None, None, RuntimeError("out of luck")])

    def fail() -> None:
        if error := next(steps, None):
            raise error

    bench.fail_step = fail
    events = bench.run(*(prepared(number, words(90 + number)) for number in range(3)))
    assert not bench.failures
    for number in range(3):
        assert answer(events[number]) == answer(reference[number])
        assert end(events[number]).usage == end(reference[number]).usage


def test_a_model_that_always_throws_fails_each_request_once_and_the_loop_goes_on() -> None:
    bench = Bench(tiny_llama())

    def fail() -> None:
        raise RuntimeError("no luck at all")

    bench.fail_step = fail
    bench.run(prepared(1, words(90)), prepared(2, words(40), words(41)))
    assert sorted(failed.request or 0 for failed in bench.failures) == [1, 2]
    assert "no luck at all" in bench.failures[0].failure.message
    bench.failures.clear()
    bench.fail_step = lambda: None
    assert end(bench.run(prepared(3, words(90)))[3]).reason in ("length", "stop")


def test_a_cancelled_prefill_is_resumed_by_the_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrefillPace, "step_size", lambda self, decoding: 256)
    bench = Bench(tiny_llama())
    cancel = threading.Event()

    def cancel_in_prefill() -> None:
        if bench.forwarded >= 512 and not cancel.is_set():
            cancel.set()
            bench._inbox.put(Cancel(1))

    bench.fail_step = cancel_in_prefill
    events = bench.run(prepared(1, words(1500)))[1]
    assert end(events).reason == "cancelled"
    assert bench.forwarded < 1500
    before = bench.forwarded
    again = bench.run(prepared(2, words(1500)))[2]
    assert end(again).usage.cached_tokens >= 512
    assert bench.forwarded - before < 1000 + 8


def test_a_cancelled_answer_ends_within_a_step_and_before_what_was_computed_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(tiny_llama())
    put, ended = bench.prefix.put, list[bool]()
    after = 0

    def kept(*given: Any) -> None:
        ended.append(any(isinstance(event, Finished) for _, event in bench._events))
        put(*given)

    monkeypatch.setattr(bench.prefix, "put", kept)

    def cancel_in_decode() -> None:
        nonlocal after
        if bench.forwarded >= 100 + 20:
            after += 1
            bench._inbox.put(Cancel(1))

    bench.fail_step = cancel_in_decode
    endless = SamplingParams(temperature=0, max_tokens=1000, logit_bias=((96, -100.0),))
    events = bench.run(prepared(1, words(100), sampling=endless))[1]
    assert end(events).reason == "cancelled"
    assert after <= 2, "the step in which it was cancelled, and the one that was begun with it"
    assert 18 <= end(events).usage.completion_tokens <= 22
    assert ended == [True]


def test_a_storm_of_cancels_leaves_nothing_behind() -> None:
    bench = Bench(tiny_llama())
    items: list[Prepared | Cancel] = []
    for number in range(100):
        items.append(prepared(number, words(20 + number)))
        if number % 3:
            items.append(Cancel(number))
    items.append(Cancel(12345))
    events = bench.run(*items)
    assert all(len([e for e in of if isinstance(e, Finished)]) == 1 for of in events.values())
    assert {end(events[number]).reason for number in range(100) if number % 3} == {"cancelled"}
    assert bench._runner._batch.prompt_cache_nbytes == 0
