"""On the CPU an answer is the same to the bit alone and in company, cold and warm, and however its prompt was cut."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.nn.layers.quantized import quantize
from mlx.utils import tree_unflatten
from mlx_lm.models import gemma3_text, llama, qwen3
from mlx_lm.models.cache import make_prompt_cache

from squish.format.architectures import USUAL_KV_BITS
from squish.generation import GenerationEvent, SamplingParams, TextDelta
from squish.worker.cache.disk import DiskTier
from squish.worker.cache.prefix import PrefixCache
from squish.worker.cpu import functions, fusion
from squish.worker.cpu.layers import can_pack, pack
from squish.worker.model.load import load
from squish.worker.pace import PrefillPace
from squish.worker.prompt.turns import Owner
from squish.worker.rows import Prepared
from squish.worker.tokenizer.facts import Shelf
from tests.conftest import MODEL
from tests.worker.cpu.opened import native
from tests.worker.test_runner import Bench, end, prepared, words

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "vocab_size": 97,
    "rms_norm_eps": 1e-5,
}


def tiny_llama() -> Any:
    return llama.Model(llama.ModelArgs("llama", num_key_value_heads=2, **SIZES))


def tiny_qwen3() -> Any:
    sizes = {**SIZES, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 4096}
    return qwen3.Model(qwen3.ModelArgs("qwen3", rope_theta=1e4, tie_word_embeddings=True, **sizes))


def tiny_gemma3() -> Any:
    sizes = {**SIZES, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 96, "sliding_window_pattern": 3}
    return gemma3_text.Model(gemma3_text.ModelArgs("gemma3_text", **sizes))


def on_cpu(model: Any, *, quantized: bool, exact: bool, kv_bits: int = USUAL_KV_BITS) -> Any:
    """The model as the worker has it on a CPU."""
    if quantized:
        quantize(model, 32, 4)
    packed = [(name, pack(module, exact=exact)) for name, module in model.named_modules() if can_pack(module)]
    model.update_modules(tree_unflatten(packed))
    assert fusion.fuse(model, native(), kv_bits)
    assert fusion.same_in_any_company(model)
    return model


@pytest.fixture(autouse=True)
def replaced() -> Iterator[None]:
    mx.random.seed(7)
    core: Any = mx
    own = core.fast.rms_norm, core.fast.rope, core.fast.scaled_dot_product_attention, core.logsumexp
    functions.use(native())
    yield
    core.fast.rms_norm, core.fast.rope, core.fast.scaled_dot_product_attention, core.logsumexp = own


def exact_cache(model: Any) -> PrefixCache:
    return PrefixCache(1 << 30, make_prompt_cache(model), exact=True)


class Company(Bench):
    """A runner into which requests come while others run. arrive: how likely one does at each pass of the model."""

    def __init__(
        self,
        model: Any,
        prefix: PrefixCache | None = None,
        chance: random.Random | None = None,
        *,
        lookup: bool = False,
    ) -> None:
        super().__init__(model, exact_cache(model) if prefix is None else prefix, lookup=lookup)
        self._later: list[Prepared] = []
        self._chance = chance or random.Random(1)
        self.fail_step = self._arrive

    def _arrive(self) -> None:
        if self._later and self._chance.random() < 0.4:
            self._inbox.put(self._later.pop())

    def together(self, items: list[Prepared]) -> dict[int, Any]:
        """The answer to each request, by request; at least one is there from the beginning."""
        first = self._chance.randint(1, len(items))
        self._later = items[first:]
        return {
            request: answer_of(events) for request, events in self.run(*items[:first], later=tuple(self._later)).items()
        }


def answer_of(events: list[GenerationEvent]) -> Any:
    """All that a client sees of the text, with every log-probability to the bit."""
    deltas = [event for event in events if isinstance(event, TextDelta)]
    entries = [entry for delta in deltas for entry in delta.logprobs]
    assert entries
    return "".join(delta.text for delta in deltas), entries, end(events).reason


def greedy(length: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=length, logprobs=True, top_logprobs=3)


def prompts(chance: random.Random) -> list[list[int]]:
    """A dozen: some go on from others, some are alike up to the last token."""
    texts = [[chance.randrange(1, 95) for _ in range(chance.choice([1, 2, 30, 64, 65, 150, 290]))] for _ in range(6)]
    forks = [
        [*chance.choice(texts)[: chance.randint(1, 200)], *words(chance.randint(1, 90), start=n)] for n in range(6)
    ]
    return texts + forks


PRECISIONS = {  # quantized, exact, kv_bits
    "int8": (True, False, 16),
    "int8, int8 keys": (True, False, 8),
    "float32, int8 keys": (True, True, 8),
    "dense": (False, True, 32),
}
ONCE = [
    (tiny_qwen3, "int8"),
    (tiny_gemma3, "int8, int8 keys"),
    (tiny_qwen3, "float32, int8 keys"),
    (tiny_llama, "dense"),
]


@pytest.mark.parametrize(
    ("make", "precision"),
    [
        pytest.param(make, precision, marks=() if (make, precision) in ONCE else pytest.mark.long)
        for make in (tiny_llama, tiny_qwen3, tiny_gemma3)
        for precision in PRECISIONS
    ],
)
def test_answers_are_the_same_to_the_bit_in_every_company(
    make: Callable[[], Any], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """25 mixes of up to 8 requests of three clients with each model and precision; prompts are cut at random and wait

    for each other in the middle, caches are cold or warm.
    """
    chance = random.Random(11)
    quantized, exact, kv_bits = PRECISIONS[precision]
    model = on_cpu(make(), quantized=quantized, exact=exact, kv_bits=kv_bits)
    texts = prompts(chance)
    alone = [Company(model).together([prepared(0, text, sampling=greedy(12))])[0] for text in texts]
    assert len({answer for answer, *_ in alone}) > 6, "the model answers everything alike"
    steps = [1, 2, 7, 63, 64, 65, 256]
    monkeypatch.setattr(PrefillPace, "step_size", lambda self, decoding: chance.choice(steps))
    monkeypatch.setattr("squish.worker.batch.BLOCK", 1)
    warm: PrefixCache | None = None
    for mix in range(25):
        if mix % 5 == 0:
            warm = exact_cache(model)
        chosen = [chance.randrange(len(texts)) for _ in range(chance.randint(1, 8))]
        company = Company(model, warm, chance)
        items = [
            replace(prepared(number, texts[which], sampling=greedy(12)), owner=Owner(chance.choice("abc")))
            for number, which in enumerate(chosen)
        ]
        answers = company.together(items)
        for number, which in enumerate(chosen):
            assert answers[number] == alone[which], f"mix {mix}, request {number}"


@pytest.mark.parametrize("kv_bits", [32, 16, 8])
def test_answers_are_the_same_when_the_prompt_comes_from_the_disk(kv_bits: int, tmp_path: Path) -> None:
    model = on_cpu(tiny_llama(), quantized=True, exact=False, kv_bits=kv_bits)
    chance = random.Random(2)
    text = [chance.randrange(1, 95) for _ in range(1500)]

    def from_disk() -> PrefixCache:
        disk = DiskTier(tmp_path / "disk", "this model", 1 << 30)
        return PrefixCache(1 << 30, make_prompt_cache(model), disk, exact=True)

    first = from_disk()
    alone = Company(model, first).together([prepared(0, text, sampling=greedy(12))])[0]
    first.save(60)
    size = sum(path.stat().st_size for path in (tmp_path / "disk").glob("*.safetensors"))
    tokens, numbers = len(text) + 12, 3 * 2 * 2 * 16
    assert size == pytest.approx(tokens * numbers * {32: 4, 16: 2, 8: 1 + 2 / 16}[kv_bits], rel=0.05)
    again = Company(model, from_disk())
    events = again.run(prepared(0, text, sampling=greedy(12)))[0]
    assert (end(events).usage.cached_tokens, answer_of(events)) == (1499, alone)
    half = text[:700] + words(30)
    cold = Company(model).together([prepared(0, half, sampling=greedy(12))])[0]
    assert Company(model, from_disk()).together([prepared(0, half, sampling=greedy(12))])[0] == cold


def test_a_known_prompt_costs_one_token() -> None:
    model = on_cpu(tiny_llama(), quantized=True, exact=False)
    bench = Company(model)
    first = bench.together([prepared(1, words(433), sampling=greedy(5))])[1]
    before = bench.forwarded
    events = bench.run(prepared(2, words(433), sampling=greedy(5)))[2]
    assert (end(events).usage.cached_tokens, answer_of(events)) == (432, first)
    assert bench.forwarded - before <= 1 + 5


def test_several_choices_are_those_of_one_alone() -> None:
    model = on_cpu(tiny_llama(), quantized=True, exact=False)
    seeded = SamplingParams(temperature=0.9, seed=4, n=3, max_tokens=12)
    item = Prepared(1, [words(70)], seeded, time.monotonic())
    alone = texts_of(Company(model).run(item)[1])
    neighbors = [prepared(number, words(90 + number), sampling=greedy(20)) for number in range(2, 6)]
    assert texts_of(Company(model).run(item, *neighbors)[1]) == alone
    assert len(set(alone.values())) > 1


def texts_of(events: list[GenerationEvent]) -> dict[int, str]:
    found: dict[int, str] = {}
    for event in events:
        if isinstance(event, TextDelta):
            found[event.index] = found.get(event.index, "") + event.text
    return found


def test_a_step_of_the_real_model_is_few_operations(real: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counted: list[int] = []
    start: Any = mx.async_eval

    def count(*outputs: Any) -> None:
        arrays = [array for output in outputs for array in (output if isinstance(output, list) else [output])]
        mx.export_to_dot(str(tmp_path / "step.dot"), *arrays)
        counted.append((tmp_path / "step.dot").read_text().count("shape=rectangle"))
        start(*outputs)

    monkeypatch.setattr(mx, "async_eval", count)
    text = real.tokenizer.encode("The river was older than the city")
    Company(real.model).together([prepared(0, text, sampling=greedy(4))])
    assert 30 < max(counted) <= 60, f"{counted}: one for each of 30 blocks, and what is around them"


@pytest.fixture(scope="module")
def real(real_home: Path) -> Any:
    """The real model as the worker has it on a CPU."""
    native()
    home = real_home / ".squish"
    loaded = load(home / "models" / MODEL.replace(":", "+"), shelf=Shelf(home / "cache" / "tokenizers"))
    assert fusion.fuse(loaded.model, native(), USUAL_KV_BITS)
    return loaded


@pytest.mark.parametrize(("longest", "rounds"), [(10, 2), pytest.param(30, 3, marks=pytest.mark.long)])
def test_the_real_model_answers_the_same_in_a_batch_of_eight_and_with_a_warm_cache(
    real: Any, longest: int, rounds: int
) -> None:
    chance = random.Random(5)
    texts = [real.tokenizer.encode("The river was older than the city, and " * count) for count in (1, 4, 9, longest)]
    texts += [[*text[: len(text) // 2], *texts[0]] for text in texts]
    alone = [Company(real.model).together([prepared(0, text, sampling=greedy(16))])[0] for text in texts]
    warm = exact_cache(real.model)
    for _ in range(rounds):
        order = chance.sample(range(len(texts)), len(texts))
        items = [prepared(which, texts[which], sampling=greedy(16)) for which in order]
        answers = Company(real.model, warm, chance).together(items)
        assert [answers[which] for which in range(len(texts))] == alone
