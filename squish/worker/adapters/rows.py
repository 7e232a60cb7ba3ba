"""Which adapter each row of a batch has: a tag that travels with the row's caches, and the model that reads it.

mlx-lm's batches move caches about when rows come and go; a tag is one cache more, which holds nothing but a name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx


class Nothing:
    """What a cache says of itself that holds nothing."""

    __slots__ = ()

    @property
    def state(self) -> list[mx.array]:
        return []

    @property
    def nbytes(self) -> int:
        return 0

    def size(self) -> int:
        return 0

    def empty(self) -> bool:
        return True

    def go_back(self, tokens: list[int]) -> None:
        """The last tokens of each row are taken back: so many."""


@dataclass(slots=True)
class Tag(Nothing):
    """Of one row. adapter: None for the model as it is."""

    adapter: str | None

    @classmethod
    def merge(cls, tags: list[Tag]) -> BatchTags:
        return BatchTags([tag.adapter for tag in tags])


@dataclass(slots=True)
class BatchTags(Nothing):
    """Of all rows of a batch, in their order; handled as a cache is."""

    rows: list[str | None]

    def filter(self, indices: list[int]) -> None:
        self.rows = [self.rows[int(index)] for index in indices]

    def extend(self, other: BatchTags) -> None:
        self.rows = self.rows + other.rows

    def extract(self, index: int) -> Tag:
        return Tag(self.rows[index])

    def part(self, indices: list[int]) -> BatchTags:
        """Of some of the rows."""
        return BatchTags([self.rows[index] for index in indices])

    def prepare(self, **_: Any) -> None:
        """Nothing is padded."""

    def finalize(self) -> None:
        """Nothing was padded."""


def untagged(caches: list[Any]) -> tuple[str | None, list[Any]]:
    """The adapter of a row, and its caches without the tag; those of a batch without tags have none."""
    if caches and isinstance(caches[-1], Tag):
        return caches[-1].adapter, caches[:-1]
    return None, caches


@dataclass(slots=True)
class Selection:
    """The adapter of each row that is being computed; None where no row has one."""

    rows: tuple[str | None, ...] | None = None


@dataclass(slots=True)
class TaggedModel:
    """A model whose last cache is the rows' tags."""

    model: Any
    selection: Selection = field(default_factory=Selection)

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        *caches, tags = cache
        adapted = any(tags.rows)
        for each in caches:
            if hasattr(each, "in_parts"):
                each.in_parts = adapted
        self.selection.rows = tuple(tags.rows) if adapted else None
        try:
            logits: mx.array = self.model(tokens, cache=caches)
        finally:
            self.selection.rows = None
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)
