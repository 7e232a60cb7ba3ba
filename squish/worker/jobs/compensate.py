"""Owns the rounding of a matrix whose inputs are known: scales by their importance, errors that make up for each other.

It is GPTQ (https://arxiv.org/abs/2210.17323) with scales that are fixed first, each the best of several ranges by the
squared error weighted with the mean square of its input, and columns in the order of that importance. Then all scales
and offsets of a row are fitted together, and each integer once more. The format is mlx's own. It knows no models.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from squish.worker.jobs.rounding import SMALLEST, Floats, least_squares, packed

_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
_LOOKED_UP = 0.3  # of the mean input: what each counts for more in an embedding that is also the output
_OF_THE_TEXT = 0.35  # of how two inputs go together, which another text does not repeat
_DAMPING = 0.01  # of the mean of the diagonal: as much as each input is taken to be independent of the others
_WIDEST = 8192  # columns whose inputs are taken together: their squares are 268 MB
_ROWS_AT_ONCE = 16384
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is known of the inputs of some columns.

    second: (columns, columns) mean products of two of them, damped, those of different ones made smaller: in part they
    are the text's, and not those of another one; order: columns, the most important first; factor: the upper Cholesky
    factor of the inverse of `second` in that order.
    """

    second: Floats
    order: NDArray[np.intp]
    factor: Floats


def inputs(x: mx.array, group_size: int) -> list[Inputs]:
    """What (..., columns) inputs say, for at most 8,192 columns each."""
    x = x.reshape(-1, x.shape[-1])
    width = x.shape[1]
    step = width if width <= _WIDEST else _WIDEST // 2 // group_size * group_size
    found = []
    for start in range(0, width, step):
        part = x[:, start : start + step]
        second = np.array((part.T @ part) / x.shape[0]).astype(np.float64)
        second -= _OF_THE_TEXT * (second - np.diag(np.diag(second)))
        found.append(_inputs(second))
    return found


def also_looked_up(known: list[Inputs]) -> list[Inputs]:
    """For an embedding that is also the output: a lookup needs all columns alike, so each counts somewhat more."""
    return [
        _inputs(each.second + _LOOKED_UP * np.diag(each.second).mean() * np.eye(len(each.second))) for each in known
    ]


def squares(x: mx.array, looked_up: bool) -> Floats:
    """The mean square of each of (…, columns) inputs; looked_up: as for `also_looked_up`."""
    found = np.array(mx.mean(mx.square(x.reshape(-1, x.shape[-1])), axis=0))
    return found + np.float32(_LOOKED_UP) * found.mean() if looked_up else found


def _inputs(second: NDArray[np.float64]) -> Inputs:
    diagonal = np.diag(second).copy()
    order = np.argsort(-diagonal, kind="stable")
    damping = _DAMPING * max(float(diagonal.mean()), 1e-12)
    while True:
        second[np.diag_indices(len(second))] = diagonal + damping
        try:
            lower = np.linalg.cholesky(second[np.ix_(order[::-1], order[::-1])])
            break
        except np.linalg.LinAlgError:  # rounding made it indefinite
            damping *= 10
    # second = R Rᵀ with an upper R, so the factor of the inverse is the inverse of R.
    factor = np.triu(np.linalg.inv(lower[::-1, ::-1])).astype(np.float32)
    return Inputs(second.astype(np.float32), order, factor)


def compensated(
    weight: mx.array, bits: int, group_size: int, known: list[Inputs]
) -> tuple[mx.array, mx.array, mx.array]:
    """What `mx.quantize(weight, group_size, bits)` returns, for the least error of the products with such inputs.

    weight: (rows, columns), floating; known: for all columns, as `inputs` returns it.
    """
    top, dtype = (1 << bits) - 1, weight.dtype
    parts = []
    for start in range(0, weight.shape[0], _ROWS_AT_ONCE):
        rows = np.array(weight[start : start + _ROWS_AT_ONCE].astype(mx.float32))
        edges = [0, *itertools.accumulate(len(each.order) for each in known)]
        found = [
            _Rounding(np.ascontiguousarray(rows[:, first:last]), each, top, group_size, dtype).run()
            for (first, last), each in zip(itertools.pairwise(edges), known, strict=True)
        ]
        codes, scales, offsets = (np.concatenate(each, axis=1) for each in zip(*found, strict=True))
        lanes = packed(np.ascontiguousarray(codes).astype(np.uint32), bits).reshape(len(rows), -1)
        parts.append((mx.array(lanes), mx.array(scales).astype(dtype), mx.array(offsets).astype(dtype)))
        mx.eval(parts[-1])
    whole = [mx.concatenate(list(each)) for each in zip(*parts, strict=True)]
    return whole[0], whole[1], whole[2]


class _Rounding:
    """Some rows of a matrix, (rows, columns), and what becomes of them."""

    def __init__(self, weight: Floats, known: Inputs, top: int, group_size: int, dtype: mx.Dtype) -> None:
        self._weight, self._known, self._top, self._size, self._dtype = weight, known, top, group_size, dtype
        self._groups = weight.shape[1] // group_size

    def run(self) -> tuple[Floats, Floats, Floats]:
        """Integers (rows, columns), scales and offsets (rows, groups)."""
        scales, offsets = self._ranges()
        codes = self._in_order(scales, offsets)
        for _ in range(2):
            scales, offsets = self._fitted(codes, scales, offsets)
            codes = self._corrected(codes, scales, offsets)
        return codes, scales, offsets

    def _ranges(self) -> tuple[Floats, Floats]:
        """The best scales and offsets where errors do not make up for each other."""
        rows = self._weight.reshape(-1, self._size)
        importance = np.diag(self._known.second).reshape(self._groups, self._size)
        weights = np.tile(importance, (len(self._weight), 1))
        low, high = rows.min(axis=1), rows.max(axis=1)
        total, sums = weights.sum(axis=1), (weights * rows).sum(axis=1)
        best_scale, best_offset = np.zeros_like(low), np.zeros_like(low)
        least = np.full(len(rows), np.inf, np.float32)
        for share in _SHRINK:
            scale, offset = np.maximum((high - low) * np.float32(share / self._top), SMALLEST), low * np.float32(share)
            for _ in range(3):
                scale, offset = self._stored(scale), self._stored(offset)
                codes = self._nearest(rows, scale[:, None], offset[:, None])
                error = (weights * (codes * scale[:, None] + offset[:, None] - rows) ** 2).sum(axis=1)
                better = error < least
                best_scale[better], best_offset[better], least[better] = scale[better], offset[better], error[better]
                scale, offset = least_squares(rows, weights, total, sums, codes, scale, offset)
        return best_scale.reshape(-1, self._groups), best_offset.reshape(-1, self._groups)

    def _in_order(self, scales: Floats, offsets: Floats) -> Floats:
        """Round column after column; those that follow take up its error."""
        order, factor = self._known.order, self._known.factor
        left = np.ascontiguousarray(self._weight.T[order])
        codes, count = np.empty_like(left), len(order)
        scales, offsets = np.ascontiguousarray(scales.T), np.ascontiguousarray(offsets.T)
        for start in range(0, count, _BLOCK):
            end = min(start + _BLOCK, count)
            errors = np.empty((end - start, left.shape[1]), np.float32)
            for place in range(start, end):
                group = order[place] // self._size
                scale, offset = scales[group], offsets[group]
                codes[place] = self._nearest(left[place], scale, offset)
                error = (left[place] - (codes[place] * scale + offset)) / factor[place, place]
                errors[place - start] = error
                left[place + 1 : end] -= factor[place, place + 1 : end, None] * error
            left[end:] -= factor[start:end, end:].T @ errors
        found = np.empty_like(codes)
        found[order] = codes
        return np.ascontiguousarray(found.T)

    def _fitted(self, codes: Floats, scales: Floats, offsets: Floats) -> tuple[Floats, Floats]:
        """The scales and offsets of each row for these integers, by least squares where that is better."""
        rows, groups, size, second = len(codes), self._groups, self._size, self._known.second
        by_group = codes.reshape(rows, groups, size)
        matrix = np.empty((rows, 2 * groups, 2 * groups), np.float32)
        wanted = (self._weight @ second).reshape(rows, groups, size)
        right = np.concatenate(((wanted * by_group).sum(axis=2), wanted.sum(axis=2)), axis=1)
        for group in range(groups):
            strip = second[group * size : group * size + size]
            product = (by_group[:, group] @ strip).reshape(rows, groups, size)
            matrix[:, group, :groups] = (product * by_group).sum(axis=2)
            matrix[:, group, groups:] = product.sum(axis=2)
            plain = strip.sum(axis=0).reshape(groups, size)
            matrix[:, groups + group, :groups] = (plain * by_group).sum(axis=2)
            matrix[:, groups + group, groups:] = plain.sum(axis=1)
        ends = np.arange(2 * groups)
        matrix[:, ends, ends] = matrix[:, ends, ends] * np.float32(1 + 1e-5) + np.float32(1e-20)
        try:
            solved = np.linalg.solve(matrix.astype(np.float64), right[..., None].astype(np.float64))[..., 0]
        except np.linalg.LinAlgError:
            return scales, offsets
        found = self._stored(solved[:, :groups].astype(np.float32)), self._stored(solved[:, groups:].astype(np.float32))
        errors = [self._errors(codes, *each) for each in ((scales, offsets), found)]
        better = (errors[1] < errors[0])[:, None]
        return np.where(better, found[0], scales), np.where(better, found[1], offsets)

    def _corrected(self, codes: Floats, scales: Floats, offsets: Floats) -> Floats:
        """Each integer once more, for the least error with all the others as they are."""
        second, size, count = self._known.second, self._size, codes.shape[1]
        found = np.ascontiguousarray(codes.T)
        scales, offsets = np.ascontiguousarray(scales.T), np.ascontiguousarray(offsets.T)
        spread = np.repeat(scales, size, axis=0), np.repeat(offsets, size, axis=0)
        slopes = second @ (self._weight.T - (found * spread[0] + spread[1]))
        for start in range(0, count, _BLOCK):
            end = min(start + _BLOCK, count)
            changes = np.zeros((end - start, found.shape[1]), np.float32)
            for column in range(start, end):
                scale = scales[column // size]
                step = slopes[column] / (second[column, column] * np.where(scale == 0, np.inf, scale))
                new = np.clip(np.rint(found[column] + step), 0, self._top)
                changes[column - start] = change = (found[column] - new) * scale
                found[column] = new
                slopes[start:end] += second[start:end, column, None] * change
            slopes[:start] += second[:start, start:end] @ changes
            slopes[end:] += second[end:, start:end] @ changes
        return np.ascontiguousarray(found.T)

    def _errors(self, codes: Floats, scales: Floats, offsets: Floats) -> Floats:
        """The squared error of each row's products; infinite where a number is none."""
        spread = np.repeat(scales, self._size, axis=1), np.repeat(offsets, self._size, axis=1)
        difference = self._weight - (codes * spread[0] + spread[1])
        found = ((difference @ self._known.second) * difference).sum(axis=1)
        return np.where(np.isfinite(found), found, np.inf).astype(np.float32)

    def _nearest(self, values: Floats, scale: Floats, offset: Floats) -> Floats:
        codes: Floats = np.rint((values - offset) / np.where(scale == 0, np.inf, scale))
        return np.clip(codes, 0, self._top, out=codes)

    def _stored(self, values: Floats) -> Floats:
        """As they come back from the file: rounded to the dtype of the model."""
        return np.array(mx.array(values).astype(self._dtype).astype(mx.float32))
