"""Owns rotary position embedding on the CPU, in few operations. GPUs have a kernel of their own.

MLX's CPU backend makes one rotation of some 25 small operations, frequencies included, and a model asks for two in
every layer: of the operations of a decoding step they were the largest part, and a step of a small model takes as long
as its operations are many. Here a rotation computes six things, and gives the same numbers.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import mlx.core as mx


def use_short_rotation() -> None:
    """From now on, float32 vectors are rotated here."""
    fast: Any = mx.fast
    long = fast.rope

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
        if traditional or rest or x.ndim != 4 or dims != x.shape[-1] or dims % 2 or x.dtype != mx.float32:
            result: mx.array = long(
                x, dims, traditional=traditional, base=base, scale=scale, offset=offset, freqs=freqs, **rest
            )
            return result
        if freqs is not None:
            speeds = 1 / freqs
            return rotated(x, mx.stack([-speeds, speeds]), scale, offset)
        return rotated(x, _speeds(dims, base or 1.0), scale, offset)

    fast.rope = rope


def rotated(x: mx.array, speeds: mx.array, scale: float, offset: int | mx.array) -> mx.array:
    """(batch, heads, length, size) vectors, turned by what their positions say.

    speeds: (2, size / 2), radians a position, the first row negative. offset: the position of the first vector; one for
    all, or (batch,).
    """
    batch, heads, length, size = x.shape
    first = offset.astype(mx.float32).reshape(-1, 1, 1, 1, 1) if isinstance(offset, mx.array) else float(offset)
    positions = mx.arange(length, dtype=mx.float32)[:, None, None] + first if length > 1 else mx.array(first)
    angles = (positions if scale == 1 else positions * scale) * speeds
    halves = x.reshape(batch, heads, length, 2, size // 2)
    # The sine of the negative angle is the minus sign of the first half.
    turned = halves * mx.cos(angles) + halves[..., ::-1, :] * mx.sin(angles)
    return turned.reshape(batch, heads, length, size)


@lru_cache(maxsize=8)
def _speeds(dims: int, base: float) -> mx.array:
    half = dims // 2
    speeds = mx.exp(mx.arange(0, -half, -1, dtype=mx.float32) * (math.log(base) / half))
    both = mx.stack([-speeds, speeds])
    mx.eval(both)
    return both
