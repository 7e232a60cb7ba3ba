"""Owns attention on the CPU, in a form that MLX can fuse and in few operations. GPUs have MLX's own.

MLX's CPU backend computes softmax in a kernel compiled in advance (16 ns a score) and holds the scores of all queries
at once (half a gigabyte for 512 queries, 32 heads and 8,192 keys). Here the products are BLAS's, the rest is fused, and
a part of the queries is taken at a time, so that scores stay in the processor's cache: 17 ms instead of 49 for 512
tokens and nine heads, and a bound on memory that no context length moves. A single token's attention is five
operations of MLX's fifteen.
"""

from __future__ import annotations

import os
from typing import Any

import mlx.core as mx

SCORES = 8 << 20  # bytes of attention scores at a time
_ROWS = 16  # queries at a time, at least
_LOWEST = -1e30


def use_fused_attention() -> None:
    """From now on, attention in float32 runs here, unless MLX may not compile."""
    if os.environ.get("MLX_DISABLE_COMPILE"):
        return
    unfused: Any = mx.fast.scaled_dot_product_attention

    def attention(
        q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: Any = None, sinks: Any = None, **rest: Any
    ) -> mx.array:
        additive = isinstance(mask, mx.array) and mask.dtype != mx.bool_
        if q.dtype != mx.float32 or additive or sinks is not None or rest:
            result: mx.array = unfused(q, k, v, scale=scale, mask=mask, sinks=sinks, **rest)
            return result
        if q.shape[2] == 1:
            return single_attention(q * scale, k, v, mask if isinstance(mask, mx.array) else None)
        return fused_attention(q * scale, k, v, mask)

    mx.fast.scaled_dot_product_attention = attention


def fused_attention(q: mx.array, k: mx.array, v: mx.array, mask: mx.array | str | None) -> mx.array:
    """(batch, heads, length, size) scaled queries on (batch, key heads, keys, size) keys and values.

    mask: of booleans, as it broadcasts to (batch, heads, length, keys); "causal": the queries are those of the last
    `length` keys; None: all queries see all keys.
    """
    batch, heads, length, _ = q.shape
    keys = k.shape[2]
    step = max(_ROWS, SCORES // (4 * batch * heads * keys) // _ROWS * _ROWS)
    parts = []
    for start in range(0, length, step):
        end = min(start + step, length)
        seen = keys
        if isinstance(mask, str):
            seen = keys - length + end
            visible: mx.array | None = mx.arange(seen - end + start, seen)[:, None] >= mx.arange(seen)
        else:
            visible = mask if mask is None or mask.shape[-2] == 1 else mask[..., start:end, :]
        parts.append(_attend(q[:, :, start:end], k[:, :, :seen], v[:, :, :seen], visible))
        if step < length:
            mx.eval(parts[-1])  # or MLX runs ahead and holds the scores of many parts
    return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=2)


def single_attention(q: mx.array, k: mx.array, v: mx.array, mask: mx.array | None) -> mx.array:
    """The same for one query a row, which is the last and sees all that is not masked."""
    batch, heads, _, _ = q.shape
    key_heads = k.shape[1]
    grouped = (batch, key_heads, heads // key_heads, -1)
    scores = q.reshape(grouped) @ k.swapaxes(-1, -2)
    if mask is not None:
        every_head = mask.ndim < 3 or mask.shape[-3] == 1
        scores = mx.where(mask if every_head else mask.reshape(-1, *scores.shape[1:]), scores, _LOWEST)
    return (mx.softmax(scores, axis=-1) @ v).reshape(batch, heads, 1, -1)


def _attend(q: mx.array, k: mx.array, v: mx.array, visible: mx.array | None) -> mx.array:
    batch, heads, length, _ = q.shape
    key_heads, keys = k.shape[1], k.shape[2]
    grouped = (batch, key_heads, heads // key_heads * length, -1)
    scores = (q.reshape(grouped) @ k.swapaxes(-1, -2)).reshape(batch, heads, length, keys)
    if visible is not None:
        scores = _masked(scores, visible)
    weights = _exponential(scores, scores.max(axis=-1, keepdims=True))
    sums = weights.sum(axis=-1, keepdims=True)
    return (weights.reshape(grouped) @ v).reshape(batch, heads, length, -1) / sums


@mx.compile
def _masked(scores: mx.array, visible: mx.array) -> mx.array:
    return mx.where(visible, scores, _LOWEST)


@mx.compile
def _exponential(scores: mx.array, highest: mx.array) -> mx.array:
    return mx.exp(scores - highest)
