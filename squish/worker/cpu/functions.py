"""Owns norms, rotation, attention and logsumexp of every model on the CPU: MLX's functions, computed by the extension.

MLX's CPU backend makes each of them of some ten small operations, and a step of a small model takes as long as its
operations are many. Here each is one node of the graph, vectorized and threaded (native/layer_ops.cpp). What the
extension does not take goes to MLX's own function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

_HELD = 64


def use(native: Any) -> None:
    """From now on, models that compute in float32 on the CPU use the extension."""
    fast: Any = mx.fast
    fast.rms_norm = _norm(native, fast.rms_norm)
    fast.rope = _rotation(native, fast.rope)
    fast.scaled_dot_product_attention = _attention(native, fast.scaled_dot_product_attention)
    core: Any = mx
    core.logsumexp = _log_sum(native, core.logsumexp)


def _norm(native: Any, own: Callable[..., mx.array]) -> Callable[..., mx.array]:
    def rms_norm(x: mx.array, weight: mx.array | None, eps: float, **rest: Any) -> mx.array:
        if rest or weight is None or x.dtype != mx.float32 or weight.dtype != mx.float32:
            return own(x, weight, eps, **rest)
        normed: mx.array = native.norm(x, weight, None, 0.0, eps)[0]
        return normed

    return rms_norm


def _log_sum(native: Any, own: Callable[..., mx.array]) -> Callable[..., mx.array]:
    def logsumexp(a: mx.array, axis: Any = None, keepdims: bool = False, **rest: Any) -> mx.array:
        if rest or axis != -1 or not keepdims or a.ndim < 1 or a.dtype != mx.float32:
            return own(a, axis, keepdims, **rest)
        summed: mx.array = native.log_sum(a)
        return summed

    return logsumexp


def _rotation(native: Any, own: Callable[..., mx.array]) -> Callable[..., mx.array]:
    speeds = Speeds(native)

    def rope(
        x: mx.array,
        dims: int,
        *,
        traditional: bool,
        base: float | None = None,
        scale: float = 1.0,
        offset: int | mx.array = 0,
        freqs: mx.array | None = None,
        **rest: Any,
    ) -> mx.array:
        if rest or x.ndim != 4 or dims % 2 or x.dtype != mx.float32 or isinstance(base, mx.array):
            return own(x, dims, traditional=traditional, base=base, scale=scale, offset=offset, freqs=freqs, **rest)
        rotated: mx.array = native.rotate(x, dims, traditional, scale, speeds.of(dims, base, freqs), offset)
        return rotated

    return rope


def _attention(native: Any, own: Callable[..., mx.array]) -> Callable[..., mx.array]:
    def attention(
        q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: Any = None, sinks: Any = None, **rest: Any
    ) -> mx.array:
        floats = all(each.dtype == mx.float32 for each in (q, k, v))
        array = mask if isinstance(mask, mx.array) else None
        if rest or not floats or (array is not None and array.dtype not in (mx.bool_, mx.float32)):
            return own(q, k, v, scale=scale, mask=mask, sinks=sinks, **rest)
        attended: mx.array = native.attention(q, k, v, scale, isinstance(mask, str), 0, array, sinks)
        return attended

    return attention


class Speeds:
    """How fast each pair of numbers turns: computed once for each model's frequencies."""

    def __init__(self, native: Any) -> None:
        self._native = native
        # The frequencies are kept with the result: an id says nothing once its array is gone.
        self._known: dict[Any, tuple[mx.array | None, list[float]]] = {}

    def of(self, dims: int, base: float | None, freqs: mx.array | None) -> list[float]:
        key = (dims, base, None if freqs is None else id(freqs))
        if key not in self._known:
            if len(self._known) >= _HELD:
                self._known.clear()
            periods: Any = None if freqs is None else freqs.astype(mx.float32).tolist()
            self._known[key] = freqs, self._native.speeds(dims, base, periods)
        return self._known[key][1]
