"""Owns the KV caches of a batch on the CPU: each sequence has its own, so that none is padded to another's length.

mlx-lm's batch caches put sequences side by side in one array: when one joins or leaves, everybody's cache is copied, a
short one grows to the longest, and sums run over padding. Here a batch holds a list; joining is appending, and what
leaves takes its arrays along. They go over into mlx-lm's own caches, which the prefix cache keeps, without a copy. A
sequence that goes on from one of those reads its keys where they are, and copies them bit by bit while it writes.

It knows nothing of models; who computes with these caches is fusion.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache

_STEP = 256  # keys that a cache grows by
_TAKEN_OVER = 64  # keys lent to a sequence that it copies with each step after the first

# Own keys and values, and those that are lent.
Held = tuple[mx.array | None, mx.array | None, mx.array | None, mx.array | None]
Plan = tuple[int, int, int, int, int, bool, int, int]
# From what each row holds, and where its new tokens go, to an output and its own keys and values after it.
Node = Callable[[list[Held], list[Plan]], tuple[mx.array, list[mx.array], list[mx.array]]]


class SequenceCache:
    """The keys and values of one sequence in one layer: (1, key heads, room, size), those of `start` to `offset`.

    window: how many of the last keys are needed, None for all. owned: nobody else adds keys to these arrays. Then new
    ones are put behind the others in the same memory, and readers of a beginning see no change. lent: how many of the
    first keys are read from another's arrays, which are never written to here. Without a window, whoever goes on from
    what another holds has them lent first, and copies some with each step; the arrays of its own have room for all.
    """

    def __init__(self, window: int | None = None) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0
        self.start = 0
        self.lent = 0
        self._lender: tuple[mx.array, mx.array] | None = None
        self.window = window
        self.owned = False

    @classmethod
    def of(cls, cache: Any) -> SequenceCache:
        """The same keys and values; of a cache that `can_hold`."""
        rotating = isinstance(cache, RotatingKVCache)
        made = cls(cache.max_size if rotating else None)
        if cache.keys is None or not cache.offset:
            return made
        made.offset = cache.offset
        if not rotating:
            made.lent, made._lender = cache.offset, (cache.keys, cache.values)
        else:
            made.keys, made.values = cache._temporal_order(cache.keys), cache._temporal_order(cache.values)
            made.start = cache.offset - made.keys.shape[2]
        return made

    @staticmethod
    def can_hold(cache: Any) -> bool:
        """Whether `of` takes a cache of mlx-lm's: exact classes, because subclasses may keep more."""
        return type(cache) is KVCache or (type(cache) is RotatingKVCache and cache.keep == 0)

    def to_mlx(self) -> Any:
        """mlx-lm's cache of the same keys and values, on the same arrays."""
        cache: Any = KVCache() if self.window is None else RotatingKVCache(self.window)
        cache.offset = self.offset
        if self.empty():
            return cache
        cache.keys, cache.values = self._whole(0), self._whole(1)
        if self.window is not None:
            assert self.keys is not None
            assert self.values is not None
            end = self.offset - self.start
            first = max(0, end - self.window)
            cache.keys = mx.contiguous(self.keys[..., first:end, :])
            cache.values = mx.contiguous(self.values[..., first:end, :])
            cache._idx = end - first
        return cache

    def _whole(self, which: int) -> mx.array | None:
        """The keys (0) or the values (1) of all tokens in one array."""
        own = self.values if which else self.keys
        if self._lender is None:
            return own
        lent = self._lender[which][..., : self.lent, :]
        return lent if own is None else mx.concatenate([lent, own[..., self.lent :, :]], axis=2)

    @property
    def held(self) -> Held:
        return self.keys, self.values, *((self.lent and self._lender) or (None, None))

    def plan(self, length: int) -> Plan:
        """Where `length` new tokens go.

        That is: position, length, first key now, first key then, room then, `owned`, keys lent now, keys lent then.
        """
        room = 0 if self.keys is None else self.keys.shape[2]
        start, end = self.start, self.offset + length
        if not end - start <= room <= end - start + 2 * _STEP:
            if self.window is not None:
                start = max(start, self.offset - self.window + 1)
            room = -(-(end - start) // _STEP) * _STEP
        self.lent = min(self.lent, self.offset)  # it may have gone back
        lent = self.lent if self.keys is None else max(0, self.lent - _TAKEN_OVER)
        return self.offset, length, self.start, start, room, self.owned, self.lent, lent

    def put(self, plan: Plan, keys: mx.array, values: mx.array) -> None:
        """The arrays of its own after what was planned."""
        self.keys, self.values, self.offset, self.start, self.lent = keys, values, plan[0] + plan[1], plan[3], plan[7]
        self._lender = self._lender if self.lent else None
        self.owned = True

    @classmethod
    def merge(cls, caches: list[SequenceCache]) -> BatchCache:
        return BatchCache(caches)

    def size(self) -> int:
        return self.offset

    def empty(self) -> bool:
        return self.keys is None and self._lender is None

    @property
    def nbytes(self) -> int:
        """Of its own arrays."""
        return 0 if self.keys is None or self.values is None else self.keys.nbytes + self.values.nbytes


class BatchCache:
    """The caches of all sequences of a batch in one layer, as mlx-lm's BatchGenerator handles them."""

    def __init__(self, rows: list[SequenceCache]) -> None:
        self.rows = rows
        self._lengths: list[int] | None = None
        self.in_parts = False  # layers are computed one by one, because some have an adapter's changes
        self.ends_only = False  # of the model's last block, only what comes of each row's last token is wanted
        self.all_wanted = False  # or what comes of every token

    def run(self, length: int, node: Node) -> mx.array:
        """The first output of a node that keeps the keys and values of `length` new tokens of each row, and attends."""
        news = [length] * len(self.rows) if self._lengths is None else [min(length, left) for left in self._lengths]
        plans = [row.plan(new) for row, new in zip(self.rows, news, strict=True)]
        out, keys, values = node([row.held for row in self.rows], plans)
        for row, plan, row_keys, row_values in zip(self.rows, plans, keys, values, strict=True):
            row.put(plan, row_keys, row_values)
        if self._lengths is not None:
            self._lengths = [left - new for left, new in zip(self._lengths, news, strict=True)]
        return out

    def prepare(
        self, *, lengths: list[int] | None = None, ends_only: bool = False, all_wanted: bool = False, **padding: Any
    ) -> None:
        """The next tokens are padded on the right; only so many of each row's are its own."""
        self._lengths = None if lengths is None else list(lengths)
        self.ends_only, self.all_wanted = ends_only, all_wanted

    def finalize(self) -> None:
        self._lengths, self.ends_only, self.all_wanted = None, False, False

    def make_mask(self, length: int, **rest: Any) -> str | None:
        return "causal" if length > 1 else None  # for models that look; `attend` knows what each row sees

    def filter(self, indices: list[int]) -> None:
        self.rows = [self.rows[index] for index in indices]

    def extend(self, other: BatchCache) -> None:
        self.rows = self.rows + other.rows

    def extract(self, index: int) -> Any:
        return self.rows[index].to_mlx()

    def size(self) -> int:
        return max((row.offset for row in self.rows), default=0)

    def empty(self) -> bool:
        return all(row.empty() for row in self.rows)

    @property
    def state(self) -> list[mx.array]:
        return [array for row in self.rows for array in row.held if array is not None]

    @property
    def nbytes(self) -> int:
        return sum(row.nbytes for row in self.rows)
