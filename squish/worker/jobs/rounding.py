"""Owns the scales and offsets that are found by search, for integers in groups: `squish pull --search`.

Plain rounding spreads the integers evenly from the smallest weight of a group to the largest. Here the range is also
tried a little narrower, each time with the scale and the offset that minimize the squared error; errors of large
weights count for more, because narrower ranges cost those, and a model needs them most. What is best by that measure is
kept, so it is never worse by it than plain rounding. The format is mlx's own.

Where it is known how large each input is (calibrate.py), errors count for its mean square, and where it is known how
much the error of each weight costs the predictions (sensitivity.py), for that. Without either, less error in the
weights is not always a better model: below 4 bits, what leads straight to the residual stream (the values and outputs
of attention, the output of the MLP) came out worse for it, so there only some layers are searched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Last parts of the names of layers for which the search was measured to help at 3 bits (docs/compress.md).
_AT_ANY_BITS = frozenset({"embed_tokens", "lm_head", "q_proj", "k_proj", "gate_proj", "up_proj", "gate_up_proj"})

_SHRINK = (1.0, 0.94, 0.88, 0.82, 0.76, 0.7)
_GROUPS_AT_ONCE = 2048  # 64 weights of each take 0.5 MB: the steps of a search stay in a core's own cache
SMALLEST = np.float32(1e-8)


def is_searched(module: str, bits: int) -> bool:
    """Whether a module with this path is better for a search at so many bits where its inputs are not known."""
    return bits >= 4 or module.rpartition(".")[2] in _AT_ANY_BITS


def searched(
    weight: mx.array, bits: int, group_size: int, counts: Sequence[tuple[Floats, Floats]] = ()
) -> tuple[mx.array, mx.array, mx.array]:
    """What `mx.quantize(weight, group_size, bits)` returns, with the scales and offsets that the search finds.

    weight: (..., rows, columns), floating; columns are a multiple of group_size. counts: how much the error of a weight
    counts, as a sum of products of one vector by row and one by column; none where that is not known. Scales and
    offsets have the dtype of weight. Memory is that of the result and a few megabytes.
    """
    rows = weight.reshape(-1, weight.shape[-1])
    columns = rows.shape[1]
    step = max(1, _GROUPS_AT_ONCE * group_size // columns)
    parts = []
    for start in range(0, rows.shape[0], step):
        part = rows[start : start + step]
        known = None
        if counts:
            places = np.arange(start, start + part.shape[0]) % weight.shape[-2]
            each = [by_row[places, None] * by_column for by_row, by_column in counts]
            known = np.sum(each, axis=0).reshape(-1, group_size)
        parts.append(_part(part, bits, group_size, known))
    packed, scales, offsets = (mx.concatenate(list(each)) for each in zip(*parts, strict=True))
    lead = weight.shape[:-1]
    return packed.reshape(*lead, -1), scales.reshape(*lead, -1), offsets.reshape(*lead, -1)


def importance(groups: Floats) -> Floats:
    """How much the squared error of each weight counts: (groups, size), not negative."""
    found: Floats = np.sqrt(np.mean(groups * groups, axis=1, keepdims=True)) + np.abs(groups)
    return found


def _usable(counts: Floats) -> Floats:
    """The counts of each group with a mean of one, so that no sum of them is too small for float32."""
    mean = counts.mean(axis=1, keepdims=True)
    return np.where(mean > 0, counts / np.where(mean > 0, mean, 1), 1).astype(np.float32) + np.float32(0.01)


def _part(rows: mx.array, bits: int, group_size: int, counts: Floats | None) -> tuple[mx.array, mx.array, mx.array]:
    """Some rows: (rows, columns) → packed integers, scales, offsets. counts: of the weights of each group."""
    plain_packed, *plain = mx.quantize(rows, group_size, bits)
    mx.eval(plain_packed, *plain)
    count, columns = rows.shape
    groups = np.array(rows.astype(mx.float32)).reshape(-1, group_size)
    weights = importance(groups) if counts is None else _usable(counts)
    scales, offsets = (_numbers(each) for each in plain)
    unpacked = mx.dequantize(plain_packed, *_unit(plain), group_size, bits)
    best = np.array(unpacked.astype(mx.float32)).reshape(-1, group_size)
    least = _error(groups, weights, best, scales, offsets)
    for scale, offset in _candidates(groups, weights, (1 << bits) - 1):
        scale, offset = _stored(scale, rows.dtype), _stored(offset, rows.dtype)
        tried = _codes(groups, scale, offset, (1 << bits) - 1)
        error = _error(groups, weights, tried, scale, offset)
        better = error < least
        best[better], scales[better], offsets[better] = tried[better], scale[better], offset[better]
        least = np.where(better, error, least)
    shape = (count, columns // group_size)
    codes = mx.array(packed(best.astype(np.uint32), bits).reshape(count, -1))
    found = [mx.array(each.reshape(shape)).astype(rows.dtype) for each in (scales, offsets)]
    mx.eval(codes, *found)
    return codes, found[0], found[1]


def _candidates(groups: Floats, weights: Floats, top: int) -> Iterator[tuple[Floats, Floats]]:
    """A scale and an offset for each group, for each range that is tried."""
    low, high = groups.min(axis=1), groups.max(axis=1)
    total, total_weight = weights.sum(axis=1), np.einsum("ij,ij->i", weights, groups)
    for share in _SHRINK:
        scale, offset = np.maximum((high - low) * np.float32(share / top), SMALLEST), low * np.float32(share)
        yield least_squares(groups, weights, total, total_weight, _codes(groups, scale, offset, top), scale, offset)


def least_squares(
    groups: Floats, weights: Floats, total: Floats, sums: Floats, codes: Floats, scale: Floats, offset: Floats
) -> tuple[Floats, Floats]:
    """The scale and offset of each group with the least weighted squared error for these integers.

    groups, weights, codes: (groups, size). total, sums: of the weights, and of the weighted numbers, of each group.
    scale, offset: what a group keeps for which there is none.
    """
    weighted = weights * codes
    first = weighted.sum(axis=1)
    second = np.einsum("ij,ij->i", weighted, codes)
    product = np.einsum("ij,ij->i", weighted, groups)
    determinant = total * second - first * first
    solvable = determinant > 1e-6 * total * second
    divisor = np.where(solvable, determinant, 1)
    found = np.where(solvable, (total * product - first * sums) / divisor, scale)
    usable = solvable & (found > SMALLEST)
    shift = (second * sums - first * product) / divisor
    return np.where(usable, found, scale), np.where(usable, shift, offset)


def _codes(groups: Floats, scale: Floats, offset: Floats, top: int) -> Floats:
    """The nearest integers from 0 to top."""
    codes: Floats = groups - offset[:, None]
    codes *= (1 / np.where(scale == 0, 1, scale))[:, None]
    np.rint(codes, out=codes)
    return np.clip(codes, 0, top, out=codes)


def _error(groups: Floats, weights: Floats, codes: Floats, scale: Floats, offset: Floats) -> Floats:
    difference = codes * scale[:, None]
    difference += offset[:, None]
    difference -= groups
    difference *= difference
    found: Floats = np.einsum("ij,ij->i", difference, weights)
    return np.where(np.isfinite(found), found, np.inf)


def _stored(values: Floats, dtype: mx.Dtype) -> Floats:
    """As they come back from the file: rounded to the dtype of the model."""
    return _numbers(mx.array(values).astype(dtype))


def _numbers(array: mx.array) -> Floats:
    return np.array(array.astype(mx.float32)).reshape(-1)


def _unit(arrays: list[mx.array]) -> tuple[mx.array, mx.array]:
    """Scales of one and offsets of zero, by which dequantizing gives the integers themselves."""
    return mx.ones(arrays[0].shape), mx.zeros(arrays[1].shape)


def packed(codes: NDArray[np.uint32], bits: int) -> NDArray[Any]:
    """Integers as mlx packs them, the lowest bits first: (n, multiple of 32) → (n, words)."""
    lanes = codes.reshape(-1, 32)
    words = np.zeros((len(lanes), bits), np.uint32)
    for lane in range(32):
        word, shift = divmod(lane * bits, 32)
        words[:, word] |= lanes[:, lane] << np.uint32(shift)
        if shift + bits > 32:
            words[:, word + 1] |= lanes[:, lane] >> np.uint32(32 - shift)
    return words
