"""The branches that a GPU takes, taken on the CPU by saying that there is a GPU: none of them runs first at a user's.

What they compute is the same; that a GPU computes it is for machines that have one.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from squish.generation import SamplingParams
from squish.system.accelerator import PREFILL_STEP
from squish.system.host import MemoryReading
from squish.worker import device, memory
from squish.worker.cpu import extension
from squish.worker.jobs import probe
from squish.worker.model.load import load
from squish.worker.sampling.processors import RowProcessor
from tests.worker.model.test_load import dtypes, write_model
from tests.worker.test_adapters import TOKENS, Served, changes, peft
from tests.worker.test_runner import GREEDY, Bench, answer, prepared, tiny_llama, words

LONG = 1500  # tokens; on a CPU three steps of prefill, on a GPU one


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "on_cpu", lambda: False)


@pytest.mark.parametrize("bits", [None, 4])
def test_weights_stay_as_they_are_stored(gpu: None, tmp_path: Path, bits: int | None) -> None:
    written = write_model(tmp_path / "tiny", bits=bits)
    loaded = load(tmp_path / "tiny")
    assert loaded.dtype == ("quantized as stored" if bits else "as stored")
    assert mx.float16 in dtypes(loaded)
    assert mx.float32 not in dtypes(loaded)
    prompt = mx.array([[5, 6, 7]])
    assert mx.array_equal(loaded.model(prompt), written(prompt))


def test_answers_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    sampling = [
        GREEDY,
        SamplingParams(temperature=0, max_tokens=8, repetition_penalty=1.3, logprobs=True, top_logprobs=2),
    ]
    expected = [answer(Bench(model).run(prepared(1, words(LONG), sampling=each))[1]) for each in sampling]
    monkeypatch.setattr(device, "on_cpu", lambda: False)
    for text, each in zip(expected, sampling, strict=True):
        assert answer(Bench(model).run(prepared(1, words(LONG), sampling=each))[1]) == text


def test_an_adapter_is_added_to_weights_as_they_are_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To one row and not to the next, as a CPU does it, whose numbers have more digits."""
    base = tmp_path / "base"
    write_model(base)
    adapter = peft(tmp_path / "adapter", changes(base, 1))
    tokens, rows = [*TOKENS, *TOKENS], [adapter, None]
    expected = Served(base, adapter).logits(tokens, rows)
    monkeypatch.setattr(device, "on_cpu", lambda: False)
    monkeypatch.setattr(extension, "module", lambda: None)
    found = Served(base, adapter).logits(tokens, rows)
    assert found.dtype == mx.float16
    assert mx.allclose(found.astype(mx.float32), expected, atol=0.01)
    assert mx.abs(found[0] - found[1]).max() > 0.1


def test_a_prompt_is_read_in_longer_steps(gpu: None) -> None:
    bench = Bench(tiny_llama())
    assert bench._runner._pace._largest == PREFILL_STEP
    assert not bench._runner._use_numpy


class _Grammar:
    """Allows every third token; while it thinks, all but the end."""

    finished = False

    def __init__(self, thinks: bool) -> None:
        self.thinks = thinks

    def allowed(self, size: int) -> np.ndarray:
        return np.arange(size) % 3 == 0

    def take(self, token: int) -> None:
        pass


@pytest.mark.parametrize("thinks", [True, False])
def test_masks_are_those_of_the_cpu(thinks: bool) -> None:
    logits = mx.random.normal((1, 50), key=mx.random.key(1))
    grammar: Any = _Grammar(thinks)
    numpy, own = (RowProcessor(None, grammar, frozenset({6, 9}), use_numpy) for use_numpy in (True, False))
    expected = np.array(numpy(mx.array([1]), logits))
    assert np.array_equal(np.array(own(mx.array([1]), logits)), expected)
    assert np.isneginf(expected).sum() == (2 if thinks else 33)


def test_a_gpu_is_named_and_its_memory_measured(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_READ", 1 << 20)
    assert probe._backend() in ("CUDA", "Metal")
    assert probe._read_gbps() > 0


def test_only_weights_are_wired_and_only_where_a_gpu_shares_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    wired: list[int] = []
    monkeypatch.setattr(mx, "set_wired_limit", wired.append)
    memory.wire(7)
    monkeypatch.setattr(memory, "HOST", SimpleNamespace(memory=lambda: MemoryReading(64 << 30, 8 << 30, 48 << 30)))
    memory.wire(9)
    assert wired == [9]
    assert memory.room() == (48 << 30) - mx.get_active_memory()
    assert memory.cache_budget() == 16 << 30, "a quarter of the machine"


def test_mlx_keeps_more_buffers(gpu: None) -> None:
    before = mx.set_cache_limit(0)
    try:
        memory.limits()
        assert mx.set_cache_limit(0) > 128 << 20
    finally:
        mx.set_cache_limit(before)
