"""Owns float32 products by numpy, for a CPU without the extension and without a BLAS that MLX could use.

MLX's own BLAS is the reference one: 4 GFLOP/s. numpy, which mlx-lm needs anyway, brings OpenBLAS, whose functions have
other names than those that MLX looks for; without a compiler nothing can be put between them. So linear layers and
attention hand their arrays to numpy, which reads them where they lie, and evaluate as they go. MLX cannot evaluate what
it traces in order to compile it, so `use` switches compiling off, even where there is a compiler.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear

Array = np.ndarray[Any, np.dtype[np.float32]]

_WORTH_THREADS = 1 << 20  # multiplications; fewer take less time than handing them over
_SCORES = 8 << 20  # bytes of attention scores at a time


def use(threads: int) -> None:
    """From now on linear layers and attention in float32 run here. threads: at most, in one product."""
    os.environ["MLX_DISABLE_COMPILE"] = "1"
    mx.disable_compile()
    by_numpy = Products(threads)
    layers: tuple[Any, Any] = (Linear, Embedding)
    linear, embedding = layers[0].__call__, layers[1].as_linear
    attention = mx.fast.scaled_dot_product_attention

    def call(layer: Any, x: mx.array) -> mx.array:
        if not _are_float32(x, layer["weight"]):
            unchanged: mx.array = linear(layer, x)
            return unchanged
        y = by_numpy.with_weights(x, layer["weight"])
        return y + layer["bias"] if "bias" in layer else y

    def as_linear(layer: Any, x: mx.array) -> mx.array:
        if not _are_float32(x, layer["weight"]):
            unchanged: mx.array = embedding(layer, x)
            return unchanged
        return by_numpy.with_weights(x, layer["weight"])

    def attend(q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: Any = None, **rest: Any) -> mx.array:
        additive = isinstance(mask, mx.array) and mask.dtype != mx.bool_
        if additive or not _are_float32(q, k, v) or rest.get("sinks") is not None:
            unchanged: mx.array = attention(q, k, v, scale=scale, mask=mask, **rest)
            return unchanged
        return by_numpy.attention(q, k, v, scale, mask)

    layers[0].__call__, layers[1].as_linear = call, as_linear
    mx.fast.scaled_dot_product_attention = attend


class Products:
    """Products of float32 arrays by numpy, in parts where several threads are worth it."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def with_weights(self, x: mx.array, weight: mx.array) -> mx.array:
        """x · Wᵀ. x: (..., columns); weight: (rows, columns)."""
        rows = _in_numpy(x).reshape(-1, x.shape[-1])
        return mx.array(self.product(rows, _in_numpy(weight))).reshape(*x.shape[:-1], weight.shape[0])

    def product(self, x: Array, weight: Array) -> Array:
        """(m, n) of x (m, k) and weight (n, k), which is read once and in order where m is 1."""
        made = np.empty((len(x), len(weight)), np.float32)

        def part(start: int, end: int) -> None:
            if len(x) == 1:
                np.matmul(weight[start:end], x[0], out=made[0, start:end])
            else:
                made[:, start:end] = x @ weight[start:end].T

        if self._pool is None or x.size * len(weight) < _WORTH_THREADS:
            part(0, len(weight))
        else:
            edges = np.linspace(0, len(weight), 4 * self._threads + 1, dtype=int).tolist()
            list(self._pool.map(part, edges[:-1], edges[1:]))
        return made

    def attention(self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: Any) -> mx.array:
        """(batch, heads, length, size) queries on (batch, key heads, keys, size), some queries at a time.

        mask: of booleans, as it broadcasts to (batch, heads, length, keys); "causal": the queries are those of the last
        `length` keys; None: all queries see all keys.
        """
        batch, heads, length, size = q.shape
        key_heads, keys = k.shape[1], k.shape[2]
        queries = (_in_numpy(q) * np.float32(scale)).reshape(batch, key_heads, heads // key_heads, length, size)
        seen, values = _in_numpy(k)[:, :, None].swapaxes(-1, -2), _in_numpy(v)[:, :, None]
        visible = _in_numpy(mask) if isinstance(mask, mx.array) else None
        made = np.empty((batch, heads, length, v.shape[-1]), np.float32)
        step = max(1, _SCORES // (4 * batch * heads * keys))
        for start in range(0, length, step):
            end = min(start + step, length)
            scores = (queries[:, :, :, start:end] @ seen).reshape(batch, heads, end - start, keys)
            if isinstance(mask, str):
                hidden = np.arange(keys) > np.arange(keys - length + start, keys - length + end)[:, None]
                np.copyto(scores, np.float32(-np.inf), where=hidden)
            elif visible is not None:
                part = visible if visible.shape[-2] == 1 else visible[..., start:end, :]
                np.copyto(scores, np.float32(-1e30), where=~part)
            weights = _softmax(scores).reshape(batch, key_heads, heads // key_heads, end - start, keys)
            made[:, :, start:end] = (weights @ values).reshape(batch, heads, end - start, -1)
        return mx.array(made)


def _softmax(scores: Array) -> Array:
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _are_float32(*arrays: mx.array) -> bool:
    return all(array.dtype == mx.float32 for array in arrays)


def _in_numpy(array: mx.array) -> Any:
    """The same numbers at the same place, once they are computed."""
    return np.asarray(array)
