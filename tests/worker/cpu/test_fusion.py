"""Models whose layers were put together give the numbers they gave before, in few operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import gemma3, llama, qwen2, qwen3, smollm3

from squish.format.architectures import WITH_KV_BITS
from squish.worker.cpu.fusion import caches_by_row, fuse, kv_bits
from squish.worker.cpu.kv import BatchCache
from tests.worker.cpu.opened import native
from tests.worker.test_runner import tiny_llama, tiny_recurrent, tiny_rotating, words

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 97,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
ROPE: dict[str, dict[str, Any]] = {
    "llama3": {"factor": 8.0, "original_max_position_embeddings": 64},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "linear": {"factor": 2.0},
    "longrope": {
        "original_max_position_embeddings": 64,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 1.5, 2.0, 3.0],
    },
}


def tiny_qwen2() -> Any:
    return qwen2.Model(qwen2.ModelArgs(model_type="qwen2", **SIZES))


def tiny_qwen3() -> Any:
    return qwen3.Model(qwen3.ModelArgs(model_type="qwen3", head_dim=16, rope_theta=1e4, **SIZES))


def scaled(kind: str) -> Callable[[], Any]:
    return lambda: llama.Model(llama.ModelArgs("llama", rope_scaling={"type": kind, **ROPE[kind]}, **SIZES))


def tiny_smollm3() -> Any:
    return smollm3.Model(smollm3.ModelArgs("smollm3", no_rope_layers=[1, 0], **SIZES))


def sliding() -> Any:
    kinds = ["full_attention", "sliding_attention"]
    return llama.Model(llama.ModelArgs("llama", layer_types=kinds, sliding_window=40, **SIZES))


MODELS = [tiny_llama, tiny_rotating, tiny_qwen2, tiny_qwen3, tiny_smollm3, sliding, *map(scaled, ROPE)]


@pytest.mark.parametrize("make", MODELS, ids=["llama", "gemma3", "qwen2", "qwen3", "smollm3", "sliding", *ROPE])
def test_a_fused_model_gives_the_numbers_it_gave_before(make: Callable[[], Any]) -> None:
    mx.random.seed(3)
    model = make()
    tokens = mx.array([words(150), words(150, start=5)])
    before = model(tokens)
    mx.eval(before)
    assert fuse(model, native())
    assert mx.allclose(model(tokens), before, atol=1e-4)
    cache = batch(model, 2)
    after = mx.concatenate([model(tokens[:, :97], cache=cache), model(tokens[:, 97:], cache=cache)], axis=1)
    assert mx.allclose(after, before, atol=1e-4)


def tiny_gemma3() -> Any:
    text = {**SIZES, "model_type": "gemma3_text", "head_dim": 16, "sliding_window_pattern": 2, "sliding_window": 40}
    return gemma3.Model(gemma3.ModelArgs("gemma3", text, 97))


def test_every_architecture_that_is_said_to_have_a_choice_of_kv_bits_has_one() -> None:
    made = {"gemma3": tiny_gemma3, "gemma3_text": tiny_rotating, "llama": tiny_llama, "qwen2": tiny_qwen2}
    made |= {"qwen3": tiny_qwen3, "smollm3": tiny_smollm3}
    assert made.keys() == WITH_KV_BITS
    tokens = mx.array([words(150)])
    for name, make in made.items():
        model = make()
        before = model(tokens)
        mx.eval(before)
        assert type(model).__module__ == f"mlx_lm.models.{name}"
        assert fuse(model, native(), 8)
        assert kv_bits(model) == 8
        cache = batch(model, 1)
        assert mx.abs(model(tokens, cache=cache) - before).mean() < 5e-2
        assert cache[0].state[0].dtype == mx.uint8
    assert kv_bits(tiny_recurrent()) is None


def test_a_model_that_is_not_known_stays_as_it_is() -> None:
    model = tiny_recurrent()
    kinds = [type(module) for module in model.modules()]
    assert not fuse(model, native())
    assert [type(module) for module in model.modules()] == kinds
    assert caches_by_row(model, None) is None


def batch(model: Any, rows: int) -> list[BatchCache]:
    caches = [caches_by_row(model, None) or [] for _ in range(rows)]
    return [BatchCache(list(of)) for of in zip(*caches, strict=True)]
