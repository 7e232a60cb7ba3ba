"""Attention over prompts on the CPU gives the numbers of MLX's own, in bounded memory."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from squish.worker.cpu import attention

CAUSAL = mx.arange(20, 37)[:, None] >= mx.arange(37)


@pytest.mark.parametrize(
    "mask",
    [None, "causal", CAUSAL, CAUSAL[None, None] & (mx.arange(37) >= 3), mx.where(CAUSAL, 0.0, -1e9)],
    ids=["none", "causal", "array", "left padding", "additive"],
)
@pytest.mark.parametrize("scores", [1, attention.SCORES], ids=["in parts", "at once"])
def test_attention_gives_the_same_numbers(mask: Any, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original: Any = mx.fast.scaled_dot_product_attention
    monkeypatch.setattr(attention, "SCORES", scores)
    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", original)
    attention.use_fused_attention()
    ours: Any = mx.fast.scaled_dot_product_attention
    assert ours is not original
    q = mx.random.normal((2, 6, 17, 8))
    k, v = mx.random.normal((2, 2, 37, 8)), mx.random.normal((2, 2, 37, 12))
    expected = original(q, k, v, scale=0.3, mask=mask)
    assert mx.allclose(ours(q, k, v, scale=0.3, mask=mask), expected, atol=1e-5)


@pytest.mark.parametrize(
    "mask",
    [
        None,
        mx.arange(37) >= 3,
        mx.arange(37) >= mx.array([3, 0])[:, None, None, None],
        mx.arange(222).reshape(1, 6, 1, 37) > 9,
    ],
    ids=["none", "for all", "a row each", "a head each"],
)
def test_the_attention_of_one_token_gives_the_same_numbers(mask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original: Any = mx.fast.scaled_dot_product_attention
    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", original)
    attention.use_fused_attention()
    ours: Any = mx.fast.scaled_dot_product_attention
    q = mx.random.normal((2, 6, 1, 8))
    k, v = mx.random.normal((2, 2, 37, 8)), mx.random.normal((2, 2, 37, 12))
    expected = original(q, k, v, scale=0.3, mask=mask)
    assert mx.allclose(ours(q, k, v, scale=0.3, mask=mask), expected, atol=1e-5)


def test_attention_over_a_long_context_holds_a_part_of_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", mx.fast.scaled_dot_product_attention)
    attention.use_fused_attention()
    q, k, v = mx.random.normal((1, 16, 256, 32)), mx.random.normal((1, 2, 4096, 32)), mx.random.normal((1, 2, 4096, 32))
    mx.eval(q, k, v)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(mx.fast.scaled_dot_product_attention(q, k, v, scale=0.2, mask="causal"))
    assert mx.get_peak_memory() - before < 4 * attention.SCORES < 4 * q.shape[1] * q.shape[2] * k.shape[2]
