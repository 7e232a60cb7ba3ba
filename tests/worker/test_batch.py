"""The order of passes: the end of a prompt and its first token are one, which goes before the next step of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import mlx.core as mx
import pytest

from squish.generation import Finished, SamplingParams, TextDelta
from squish.ipc.frames import Cancel, Events, FromWorker
from squish.worker.batch import Batch
from squish.worker.pace import PrefillPace
from squish.worker.prompt.turns import Owner, PromptTurns
from tests.worker.test_runner import Bench, answer, end, prepared, tiny_recurrent, tiny_rotating, words
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


def came(bench: Bench, at: int, *items: Any) -> None:
    """These requests come while the pass with this number runs, counted from 1."""
    passes = 0

    def arrive() -> None:
        nonlocal passes
        passes += 1
        for each in items if passes == at else ():
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


def of(account: str, number: int, length: int, answer: int, *, background: bool = False) -> Any:
    """A request of somebody's."""
    item = prepared(number, words(length, start=number), sampling=greedy(answer))
    return replace(item, owner=Owner(account, background))


def before_the_first_word(bench: Passes, request: int, after: int) -> int:
    """Tokens that went through the model after so many passes and before a request's first word, padding included.

    The last pass was begun, and not waited for.
    """
    return sum(rows * tokens for rows, tokens in bench.shapes[after : bench.first_words[request] - 1])


def at_each(passes: range, *, but_long: set[int]) -> list[Any]:
    """Passes before which a request comes; those for which it takes too long to try all, each time."""
    return [pytest.param(each, marks=pytest.mark.long) if each in but_long else each for each in passes]


SIXTY = 60
CAME = [(length, at, at % 2 == 0) for length in (125, 155, 300) for at in (*range(24, 30), *range(64, 70))]
FEW = {(300, 24, True)}


@pytest.mark.parametrize(
    ("length", "came_at", "had_before"),
    [pytest.param(*each, marks=() if each in FEW else pytest.mark.long) for each in CAME],
)
def test_one_request_beside_sixty_of_another_has_its_first_word_after_twice_the_work(
    llama: Any, length: int, came_at: int, had_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it comes, beside up to thirty answers: what runs then is to be waited for as well.

    So it is if its client has had more before than the other.
    """
    monkeypatch.setattr(PrefillPace, "step_size", lambda self, decoding: 64)
    late = of("b", 99, length, 2)
    alone = Passes(llama)
    alone.run(late)
    bench = Passes(llama)
    came(bench, came_at, late)
    earlier = [of("b", 98, 600, 1)] if had_before else []
    bench.run(*earlier, *(of("a", number, 125, 64) for number in range(SIXTY)), later=(late,))
    work = before_the_first_word(bench, 99, came_at - 1)  # with the whole pass that runs when it comes
    assert before_the_first_word(alone, 99, 0) >= length
    assert work <= 2 * before_the_first_word(alone, 99, 0), bench.shapes[came_at : bench.first_words[99]]
    assert max(tokens for _, tokens in bench.shapes) < 2 * 64, "a stream stands still for one pass at most"


class Computed(Passes):
    """begun: how many rows have tokens in each computation of tokens that was begun, in order. One that waits, which
    `shapes` has, is not among them."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(model)
        self.begun: list[int] = []
        self.begun_before: dict[int, int] = {}
        begin = mx.async_eval

        def noted(*arrays: Any) -> None:
            prepared = [each for each in arrays[:1] if isinstance(each, mx.array) and each.size]
            self.begun += [each.size for each in prepared if id(each) not in self._known]
            self._known.update({id(each): each for each in prepared})  # kept, so that no other has its number
            begin(*arrays)  # type: ignore[no-untyped-call]

        self._known: dict[int, mx.array] = {}
        monkeypatch.setattr(mx, "async_eval", noted)

    def _take(self, frame: FromWorker) -> None:
        super()._take(frame)
        for request in self.first_words:
            self.begun_before.setdefault(request, len(self.begun))


@pytest.mark.parametrize("came_at", at_each(range(64, 72), but_long={65, 66, 67, 68, 69, 70}))
def test_who_comes_while_all_others_decode_waits_for_the_step_that_runs_and_no_other(
    llama: Any, came_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that is prepared meanwhile waits, and so does every later one until the newcomer has its first word."""
    monkeypatch.setattr(PrefillPace, "step_size", lambda self, decoding: 256)
    bench = Computed(llama, monkeypatch)
    late, at = of("b", 99, 125, 2), 0

    def arrive() -> None:
        nonlocal at
        if len(bench.shapes) == came_at:
            at = len(bench.begun)
            bench._inbox.put(late)

    bench.fail_step = arrive
    bench.run(*(of("a", number, 16, 90) for number in range(20)), later=(late,))
    assert bench.shapes[came_at - 1] == (20, 1)
    begun = bench.begun[at : bench.begun_before[99]]
    assert begun == [1, 1], "its own two tokens: the first, and the one that is computed while that is handed out"


@pytest.mark.parametrize("came_at", at_each(range(5, 20), but_long={*range(6, 9), *range(10, 14), *range(15, 19)}))
def test_who_comes_while_prompts_are_read_waits_for_the_piece_that_is_read_and_no_step(
    llama: Any, came_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step has room for eight pieces. The newcomer's prompt is read next, even if the step has no room left."""
    monkeypatch.setattr(PrefillPace, "step_size", lambda self, decoding: 512)
    monkeypatch.setattr(PrefillPace, "piece_size", 64)
    bench = Passes(llama)
    late = of("b", 99, 120, 2)
    came(bench, came_at, late)
    bench.run(*(of("a", number, 640, 16) for number in range(8)), later=(late,))
    after = bench.shapes[came_at : bench.first_words[99]]
    steps = [shape for shape in after if shape[1] == 1]
    read = sum(rows * tokens for rows, tokens in after if tokens > 1)
    assert len(steps) <= 2, "its own second token, and a step that was being prepared"
    assert read <= 120, after


def test_streams_stand_still_for_no_more_than_a_step_and_a_newcomer(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody new comes with every pass; between two steps of the first answer no more is read than that."""
    monkeypatch.setattr(PrefillPace, "step_size", lambda self, decoding: 256)
    monkeypatch.setattr(PrefillPace, "piece_size", 64)
    bench = Passes(llama)
    late = [of(f"b{number}", number, 100, 2) for number in range(10, 50)]
    waiting = list(late)
    bench.fail_step = lambda: bench._inbox.put(waiting.pop()) if waiting and len(bench.shapes) > 8 else None
    counted: list[int] = []
    hand_out = bench._runner._hand_out

    def noted(generated: list[Any]) -> None:
        if any(bench._runner._rows[each.uid].request == 1 for each in generated if each.uid in bench._runner._rows):
            counted.append(sum(rows * tokens for rows, tokens in bench.shapes if tokens > 1))
        hand_out(generated)

    monkeypatch.setattr(bench._runner, "_hand_out", noted)
    bench.run(of("a", 1, 20, 120), *(of("a", number, 640, 2) for number in range(2, 6)), later=tuple(late))
    pauses = [later - earlier for earlier, later in pairwise(counted)]
    assert 256 <= max(pauses) < 256 + 3 * 64


def test_the_prompts_of_one_client_do_not_hold_up_another(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine long prompts are being read when it comes; it goes before what is left of them."""
    monkeypatch.setattr(PrefillPace, "step_size", lambda self, decoding: 64)
    bench = Passes(llama)
    late = of("b", 99, 300, 2)
    came(bench, 8, late)
    bench.run(*(of("a", number, 900, 2) for number in range(9)), later=(late,))
    assert bench.shapes[8:12] == [(1, 64), (1, 64), (1, 64), (1, 108)]


def test_of_two_long_prompts_the_shorter_waits_for_no_more_than_the_pass_that_runs(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrefillPace, "step_size", lambda self, decoding: 64)
    bench = Passes(llama)
    bench.run(of("a", 1, 900, 1), of("b", 2, 640, 1))
    assert bench.first_words[2] <= 12 < bench.first_words[1]
    assert max(rows for rows, _ in bench.shapes) == 1


def test_a_prompt_for_which_nobody_waits_is_read_last(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrefillPace, "step_size", lambda self, decoding: 64)
    bench = Passes(llama)
    late = of("a", 99, 640, 1)
    came(bench, 2, late)
    bench.run(of("a", 1, 900, 1, background=True), later=(late,))
    assert bench.first_words[99] <= 2 + 11 < bench.first_words[1]


@pytest.mark.parametrize("make", [tiny_llama, tiny_rotating, tiny_recurrent])
def test_a_prompt_that_waits_in_the_middle_is_answered_as_without(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With each kind of cache; the waiting one can also be cancelled, and what is read of it stays known."""
    monkeypatch.setattr(PrefillPace, "step_size", lambda self, decoding: 64)
    model = make()
    first, late = of("a", 1, 500, 6), of("b", 2, 300, 6)
    alone = [answer(Bench(model).run(each)[each.request]) for each in (first, late)]
    bench = Bench(model)
    came(bench, 3, late)
    events = bench.run(first, later=(late,))
    assert [answer(events[1]), answer(events[2])] == alone
    cancelled = Bench(model)
    came(cancelled, 3, late, Cancel(1))
    events = cancelled.run(first, later=(late,))
    assert (answer(events[2]), end(events[1]).reason) == (alone[1], "cancelled")
    assert not cancelled._runner._batch._paused


def test_a_client_is_charged_the_tokens_that_were_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass reads less than it might where a prompt has a place to keep, or where rows have to be of one length."""
    charged: dict[int, int] = {}
    count = PromptTurns.charge

    def noted(self: PromptTurns, read: Mapping[int, int]) -> None:
        for row, tokens in read.items():
            charged[row] = charged.get(row, 0) + tokens
        count(self, read)

    monkeypatch.setattr(PromptTurns, "charge", noted)
    lengths = (300, 90, 40)
    items = [prepared(number, words(length, start=number), sampling=greedy(4)) for number, length in enumerate(lengths)]
    Passes(tiny_recurrent()).run(*items)
    left = [length - charged[row] for row, length in enumerate(lengths)]
    assert set(left) <= {0, 1}, "the last one may be a step's"
