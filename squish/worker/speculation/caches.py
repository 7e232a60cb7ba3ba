"""The caches of a batch while guesses are checked: some new tokens of each row in one pass, then back to what holds.

Two kinds can go back: those of cpu/kv.py, where each row has its own, and mlx-lm's for plain attention. Of the others,
rotating ones have overwritten what would be needed again, and recurrent ones hold nothing but their latest state.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache

from squish.worker.cpu.kv import BatchCache

_PADDING = 256  # tokens of padding in every row that are worth a copy to be rid of


def can_rewind(caches: list[Any]) -> bool:
    """Whether `forward` and `rewind` take these caches, one a layer."""
    return bool(caches) and any(all(type(cache) is kind for cache in caches) for kind in (BatchCache, BatchKVCache))


def by_row(caches: list[Any]) -> bool:
    """Whether rows of different lengths cost each other nothing."""
    return all(type(cache) is BatchCache for cache in caches)


def forward(model: Any, caches: list[Any], rows: list[list[int]]) -> list[mx.array]:
    """Logits after each new token: for each row (its tokens, vocabulary), not evaluated. rows: at least one each."""
    if not by_row(caches):
        logits: mx.array = model(_padded(rows), cache=caches)
        return [logits[at, : len(tokens)] for at, tokens in enumerate(rows)]
    result: dict[int, mx.array] = {}
    for alone in (True, False):  # those that guess nothing are not padded to the guesses of others
        group = [at for at, tokens in enumerate(rows) if (len(tokens) == 1) == alone]
        if group:
            result |= dict(zip(group, _of_group(model, caches, group, [rows[at] for at in group]), strict=True))
    return [result[at] for at in range(len(rows))]


def _of_group(model: Any, caches: list[Any], group: list[int], rows: list[list[int]]) -> list[mx.array]:
    own = [BatchCache([cache.rows[at] for at in group]) for cache in caches]
    for cache in own:
        cache.prepare(lengths=[len(tokens) for tokens in rows], all_wanted=True)
    logits = model(_padded(rows), cache=own)
    return [logits[at, : len(tokens)] for at, tokens in enumerate(rows)]


def _padded(rows: list[list[int]]) -> mx.array:
    longest = max(map(len, rows))
    return mx.array([tokens + [0] * (longest - len(tokens)) for tokens in rows])


def rewind(caches: list[Any], lengths: list[int], kept: list[int]) -> None:
    """After `forward` with so many new tokens of each row: keep only the first ones, at least one."""
    if by_row(caches):
        for cache in caches:
            for row, length, keep in zip(cache.rows, lengths, kept, strict=True):
                row.offset -= length - keep
        return
    longest = max(lengths)
    spare = longest - max(kept)
    right = [longest - spare - keep for keep in kept]
    for cache in caches:
        cache.trim(spare)
        if any(right):  # mlx-lm's rows end together: a shorter one gets its padding on the left
            cache.prepare(right_padding=right)
            cache.finalize()
    if any(right) and min(caches[0].left_padding.tolist()) >= _PADDING:
        for cache in caches:
            cache.filter(list(range(len(kept))))
