"""Owns the rows that a rank above 0 holds: their caches by number, as rank 0 says what becomes of them.

Rank 0's batch merges, splits and copies caches as it likes; here a row is a number, and a pass names its rows. It knows
neither sockets nor what the tokens are.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import CacheList, KVCache, QuantizedKVCache, make_prompt_cache

from squish.ipc.group_frames import Drop, Fork, Forward
from squish.worker.cpu.fusion import caches_by_row, caches_of_mlx
from squish.worker.cpu.kv import BatchCache, SequenceCache
from squish.worker.speculation.caches import can_rewind, go_back


class OutOfStep(Exception):
    """Rank 0 speaks of something that is not so here."""


@dataclass(slots=True, eq=False)
class _Together:
    """Rows whose caches are merged, in this order. held: tokens of each."""

    rows: tuple[int, ...]
    caches: list[Any]
    held: list[int]


class Rows:
    """model: this rank's part, to make its caches."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._alone: dict[int, list[Any]] = {}  # caches of one row, one a layer
        self._together: dict[int, _Together] = {}

    def __len__(self) -> int:
        return len(self._alone) + len(self._together)

    def fork(self, frame: Fork) -> None:
        if frame.old is None:
            caches = make_prompt_cache(self._model)
        else:
            caches = [_view(cache, frame.length) for cache in self._of(frame.old)]
        self._alone[frame.new] = caches_by_row(self._model, caches) or caches

    def drop(self, frame: Drop) -> None:
        """Of rows that are merged with others, the memory is free when the others are parted, or dropped too."""
        for row in frame.rows:
            self._alone.pop(row, None)
            self._together.pop(row, None)

    def caches(self, frame: Forward) -> list[Any]:
        """What the model is given for a pass, one a layer. To be followed by `finish`."""
        caches = self._merged(frame)
        lengths = [len(tokens) for tokens in frame.tokens]
        if any(length < frame.width for length in lengths):
            padding = [frame.width - length for length in lengths]
            for cache in caches:
                cache.prepare(lengths=lengths, right_padding=padding)
        return caches

    def finish(self, frame: Forward, caches: list[Any]) -> None:
        """The model has been called."""
        if any(len(tokens) < frame.width for tokens in frame.tokens):
            for cache in caches:
                cache.finalize()
        if home := self._together.get(frame.rows[0]):
            home.held = [offset + len(new) for offset, new in zip(frame.offsets, frame.tokens, strict=True)]

    def _of(self, row: int) -> list[Any]:
        """Caches of mlx-lm's of one row, which nobody writes to."""
        if (caches := self._alone.get(row)) is not None:
            return caches_of_mlx(caches)
        if (home := self._together.get(row)) is None:
            raise OutOfStep(f"row {row} is not known")
        return [cache.extract(home.rows.index(row)) for cache in home.caches]

    def _merged(self, frame: Forward) -> list[Any]:
        if all(isinstance(cache, SequenceCache) for row in frame.rows for cache in self._alone.get(row, [None])):
            return self._side_by_side(frame)
        home = self._together.get(frame.rows[0])
        if home is None or home.rows != frame.rows:
            return self._move_together(frame).caches
        back = [held - offset for held, offset in zip(home.held, frame.offsets, strict=True)]
        if any(back):  # guesses that were wrong
            if min(back) < 0 or not can_rewind(home.caches):
                raise OutOfStep(f"rows of {home.held} tokens are to have {frame.offsets}")
            go_back(home.caches, back)
        return home.caches

    def _side_by_side(self, frame: Forward) -> list[Any]:
        """Rows that have caches of their own, cut to what rank 0 holds of them."""
        rows = [self._alone[row] for row in frame.rows]
        for caches, offset in zip(rows, frame.offsets, strict=True):
            for cache in caches:
                if cache.offset < offset:
                    raise OutOfStep(f"a row of {cache.offset} tokens is to have {offset}")
                cache.offset = offset
        return [BatchCache(list(layer)) for layer in zip(*rows, strict=True)]

    def _move_together(self, frame: Forward) -> _Together:
        rows = frame.rows
        for home in {id(self._together[row]): self._together[row] for row in rows if row in self._together}.values():
            self._part(home)
        try:
            each = [self._alone.pop(row) for row in rows]
        except KeyError as error:
            raise OutOfStep(f"row {error} is not known") from None
        each = [[_view(cache, to) for cache in caches] for caches, to in zip(each, frame.offsets, strict=True)]
        merged = [layer[0].merge(list(layer)) for layer in zip(*each, strict=True)]
        home = _Together(rows, merged, list(frame.offsets))
        self._together |= dict.fromkeys(rows, home)
        return home

    def _part(self, home: _Together) -> None:
        for at, row in enumerate(home.rows):
            if self._together.get(row) is home:
                self._alone[row] = [cache.extract(at) for cache in home.caches]
                del self._together[row]


def arrays(caches: list[Any]) -> list[mx.array]:
    """What the caches of a pass hold, to be evaluated."""
    return [cache.state for cache in caches]


def _view(cache: Any, length: int) -> Any:
    """The beginning of a cache, on the same arrays; all of one that cannot be cut."""
    view = copy.copy(cache)
    if type(cache) is CacheList:
        view.caches = tuple(_view(part, length) for part in cache.caches)
    elif type(cache) in (KVCache, QuantizedKVCache):
        view.offset = length
    return view
