"""Chooses the bits of each matrix for the least harm at a size, and owns which choices there are.

The harm of a choice is what `sensitivity` says of its plain rounding; where a matrix could not be measured, its share
of error times what such a share costs elsewhere. Harms are taken to add up. So matrices get their smallest choice
first, and then, one after the other, the step up that saves most harm a byte, as long as there is room: along the
lower convex hull of each matrix that is the best there is, but for what one step leaves over.
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import mlx.core as mx

from squish.worker.jobs.sensitivity import Dependence

_BITS = (2, 3, 4, 5, 6, 8)
_ROWS = 1024  # of a matrix: so many that count most, and so many of the others, stand for all
_EXPERTS = 4  # of a layer, which stand for all


class Choice(NamedTuple):
    """How a matrix may be rounded."""

    bits: int
    group_size: int


class Harms(NamedTuple):
    """What each choice does to a matrix. shares: of its squares; nats: a token, empty where that was not measured."""

    choices: list[Choice]
    shares: list[float]
    nats: list[float]


def choices(columns: int, groups: Sequence[int]) -> list[Choice]:
    """What a matrix with so many columns may get. groups: sizes that are allowed."""
    return [Choice(bits, group) for group in groups if columns % group == 0 for bits in _BITS]


def size(weights: int, choice: Choice, number: int) -> int:
    """Bytes of so many weights. number: bytes of a scale, and of an offset."""
    return weights * choice.bits // 8 + weights // choice.group_size * 2 * number


def harms(weight: mx.array, allowed: Sequence[Choice], known: Sequence[Dependence]) -> Harms:
    """Round some rows of a matrix, (…, rows, columns), in each way, and see what it does."""
    experts = weight.reshape(-1, *weight.shape[-2:])[:_EXPERTS]
    chosen, counts = _rows(experts.shape[1], known)
    rows = experts[:, chosen]
    exact = rows.astype(mx.float32)
    total = mx.sum(exact * exact)
    parts = [(each.rows[chosen] * counts / 2, each.columns) for each in known]
    shares, nats = [], []
    for bits, group in allowed:
        error = mx.square(mx.dequantize(*mx.quantize(rows, group, bits), group, bits).astype(mx.float32) - exact)
        each = [mx.sum(mx.mean(error @ columns, axis=0) * by_row) for by_row, columns in parts]
        found = [mx.sum(error) / mx.maximum(total, 1e-30), *each]
        mx.eval(found)
        shares.append(float(found[0]))
        nats.append(sum(map(float, found[1:]), 0.0))
    return Harms(list(allowed), shares, nats if known else [])


def _rows(count: int, known: Sequence[Dependence]) -> tuple[mx.array, mx.array]:
    """Which of so many rows are looked at, and for how many each stands: those that count most stand for themselves."""
    if count <= 2 * _ROWS:
        return mx.arange(count), mx.ones(count)
    weights = [each.rows / mx.maximum(mx.sum(each.rows), 1e-30) for each in known]
    order = mx.argsort(-sum(weights, mx.zeros(count)))
    step = (count - _ROWS) // _ROWS
    rest = order[_ROWS::step]
    counts = mx.concatenate([mx.ones(_ROWS), mx.full(rest.shape, (count - _ROWS) / len(rest))])
    return mx.concatenate([order[:_ROWS], rest]), counts


def allocate(matrices: Mapping[str, Harms], sizes: Mapping[str, Sequence[int]], room: int) -> dict[str, Choice] | None:
    """The choice of each matrix; None where even the smallest ones need more bytes than `room`.

    sizes: of each matrix, bytes of each of its choices.
    """
    scale = _nats_a_share(matrices)
    points = {}
    for name, each in matrices.items():
        # Where nothing was measured each weight counts alike: a large matrix would get the fewest bits otherwise.
        counts = sizes[name][0] / each.choices[0].bits if scale is None else scale
        points[name] = list(zip(sizes[name], each.nats or [counts * share for share in each.shares], strict=True))
    hulls = {name: _hull(each) for name, each in points.items()}
    at = dict.fromkeys(hulls, 0)
    left = room - sum(points[name][hull[0]][0] for name, hull in hulls.items())
    if left < 0:
        return None
    steps: list[tuple[float, str]] = []

    def offer(name: str) -> None:
        ahead = hulls[name][at[name] : at[name] + 2]
        if len(ahead) == 2:
            heapq.heappush(steps, (_slope(points[name], *ahead), name))

    for name in hulls:
        offer(name)
    while steps:
        _, name = heapq.heappop(steps)
        now, following = hulls[name][at[name] : at[name] + 2]
        cost = points[name][following][0] - points[name][now][0]
        if cost <= left:
            left -= cost
            at[name] += 1
            offer(name)
    return {name: matrices[name].choices[hull[at[name]]] for name, hull in hulls.items()}


def _nats_a_share(matrices: Mapping[str, Harms]) -> float | None:
    """What a share of error costs in the middle one of the measured matrices; None where there are none."""
    measured = [sum(each.nats) / max(sum(each.shares), 1e-30) for each in matrices.values() if each.nats]
    return statistics.median(measured) if measured else None


def _hull(points: list[tuple[int, float]]) -> list[int]:
    """The places of the points of the lower convex hull that fall: from the smallest to where nothing is gained."""
    order = sorted(range(len(points)), key=lambda place: points[place])
    kept: list[int] = []
    for place in order:
        if kept and points[place][1] >= points[kept[-1]][1]:
            continue
        while len(kept) > 1 and _slope(points, kept[-2], kept[-1]) >= _slope(points, kept[-1], place):
            kept.pop()
        kept.append(place)
    return kept


def _slope(points: list[tuple[int, float]], first: int, second: int) -> float:
    """Falls are negative."""
    return (points[second][1] - points[first][1]) / (points[second][0] - points[first][0])
