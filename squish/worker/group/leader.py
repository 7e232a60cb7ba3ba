"""Owns what rank 0 does for the others: each pass of its model is announced to them, with the rows it is about.

To the batch it is a model like any other, whose last cache says which row is which (`RowTag`), as adapters' tags do.
A row's number goes where its caches go: through the batch, into the prefix cache, and into rows that go on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import mlx.core as mx

from squish.errors import WorkerDied
from squish.ipc.group_frames import Drop, Fork, Forward, Operation
from squish.worker.adapters.rows import Nothing
from squish.worker.group.collectives import Collectives, begin
from squish.worker.group.watch import Watch

_BETTER_REASON = 5.0  # seconds


class RowName:
    """What the other ranks call a row. When nobody refers to it any more, they need not hold it any longer."""

    __slots__ = ("_dropped", "number")

    def __init__(self, number: int, dropped: list[int]) -> None:
        self.number = number
        self._dropped = dropped

    def __del__(self) -> None:
        self._dropped.append(self.number)

    def __deepcopy__(self, _: Any) -> RowName:
        return self


@dataclass(slots=True)
class RowTag(Nothing):
    """Of one row. offset: tokens that it holds."""

    name: RowName
    offset: int

    @classmethod
    def merge(cls, tags: list[RowTag]) -> BatchRows:
        return BatchRows([RowTag(tag.name, tag.offset) for tag in tags])


@dataclass(slots=True)
class BatchRows(Nothing):
    """Of all rows of a batch, in their order; handled as a cache is."""

    rows: list[RowTag]
    lengths: list[int] | None = field(default=None)

    def filter(self, indices: list[int]) -> None:
        self.rows = [self.rows[int(index)] for index in indices]

    def extend(self, other: BatchRows) -> None:
        self.rows = self.rows + other.rows

    def extract(self, index: int) -> RowTag:
        return RowTag(self.rows[index].name, self.rows[index].offset)

    def part(self, indices: list[int]) -> BatchRows:
        """Of some of the rows; what these take, the whole batch knows."""
        return BatchRows([self.rows[index] for index in indices])

    def go_back(self, tokens: list[int]) -> None:
        """The last tokens of each row are taken back: so many. The next pass says so to the others."""
        for row, back in zip(self.rows, tokens, strict=True):
            row.offset -= back

    def prepare(self, *, lengths: list[int] | None = None, **_: Any) -> None:
        """The next tokens are padded on the right; only so many of each row's are its own."""
        self.lengths = None if lengths is None else list(lengths)

    def finalize(self) -> None:
        self.lengths = None

    def take(self, width: int) -> list[int]:
        """How many of `width` new tokens are each row's own; they count as held now."""
        if self.lengths is None:
            news = [width] * len(self.rows)
        else:
            news = [min(width, left) for left in self.lengths]
            self.lengths = [left - new for left, new in zip(self.lengths, news, strict=True)]
        for row, new in zip(self.rows, news, strict=True):
            row.offset += new
        return news


class Leading:
    """model: this rank's part. send: takes a frame to all other ranks. Belongs to the thread that computes."""

    def __init__(self, model: Any, collectives: Collectives, send: Callable[[Operation], None], watch: Watch) -> None:
        self.model = model
        self._collectives = collectives
        self._send = send
        self._watch = watch
        self._names = count(1)
        self._passes = count(1)
        self._dropped: list[int] = []
        self._last: list[mx.array] = []
        self.broken = False
        """Whether a pass failed in the middle: then the ranks are not in step any more."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def row(self, caches: list[Any] | None) -> RowTag:
        """The tag of a new row that goes on from these caches, or from nothing."""
        before = caches[-1] if caches and isinstance(caches[-1], RowTag) else None
        tag = RowTag(RowName(next(self._names), self._dropped), before.offset if before else 0)
        self._send(Fork(tag.name.number, before.name.number if before else None, tag.offset))
        return tag

    @staticmethod
    def untagged(caches: list[Any]) -> list[Any]:
        """The caches of a row without its tag."""
        return caches[:-1] if caches and isinstance(caches[-1], RowTag) else caches

    def kept(self, caches: list[Any]) -> list[Any]:
        """The same caches, for the prefix cache: what becomes of the row does not change them."""
        return [*caches[:-1], self.row(caches)] if caches and isinstance(caches[-1], RowTag) else caches

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        *caches, rows = cache
        ids: Any = tokens.tolist()  # waits for the pass before this one
        width = tokens.shape[1]
        offsets = tuple(row.offset for row in rows.rows)
        news = rows.take(width)
        self.drop()
        number = next(self._passes)
        own = tuple(tuple(row[:new]) for row, new in zip(ids, news, strict=True))
        self._watch.sent(number, time.monotonic())
        self._send(Forward(number, tuple(row.name.number for row in rows.rows), offsets, own, width))
        try:
            logits: mx.array = self.model(tokens, cache=caches)
            self._last = self._collectives.take()
            begin(self._last)
        except BaseException:
            self.broken = True  # what is wrong with another rank, who is connected to it says, and ends this process
            raise
        return logits

    def lost(self, error: Exception) -> WorkerDied:
        """What to say of a pass that failed in the middle, where nobody else ends this process with a better reason."""
        time.sleep(_BETTER_REASON)
        return WorkerDied(f"A pass of the group failed, and the group was ended: {type(error).__name__} {error}")

    def drop(self) -> None:
        """Tell the others which rows nobody needs any more."""
        if self._dropped:
            dropped, self._dropped[:] = tuple(self._dropped), []
            self._send(Drop(dropped))

    def settle(self) -> None:
        """Wait for the last pass, because there is nothing else to do."""
        mx.eval(self._last)
        self._watch.settled(time.monotonic())
        self.drop()
