"""The caches of a batch while guesses are checked: some new tokens of each row in one pass, then back to what holds.

Two kinds can go back: those of cpu/kv.py, where each row has its own, and mlx-lm's for plain attention. Of the others,
rotating ones have overwritten what would be needed again, and recurrent ones hold nothing but their latest state. A tag
behind them, which says whose the rows are, goes back with them.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache

from squish.worker.adapters.rows import Nothing
from squish.worker.cpu.kv import BatchCache

_PADDING = 256  # tokens of padding in every row that are worth a copy to be rid of


def can_rewind(caches: list[Any]) -> bool:
    """Whether `forward` and `rewind` take these caches, one a layer, and perhaps a tag."""
    layers, _ = _parted(caches)
    return bool(layers) and any(all(type(cache) is kind for cache in layers) for kind in (BatchCache, BatchKVCache))


def by_row(caches: list[Any]) -> bool:
    """Whether rows of different lengths cost each other nothing."""
    return all(type(cache) is BatchCache for cache in _parted(caches)[0])


def _parted(caches: list[Any]) -> tuple[list[Any], list[Any]]:
    """Those of the layers, and the tag where there is one."""
    at = len(caches) - bool(caches and isinstance(caches[-1], Nothing))
    return caches[:at], caches[at:]


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
    layers, tags = _parted(caches)
    own = [*(BatchCache([cache.rows[at] for at in group]) for cache in layers), *(tag.part(group) for tag in tags)]
    for cache in own:
        cache.prepare(lengths=[len(tokens) for tokens in rows], all_wanted=True)
    logits = model(_padded(rows), cache=own)
    return [logits[at, : len(tokens)] for at, tokens in enumerate(rows)]


def _padded(rows: list[list[int]]) -> mx.array:
    longest = max(map(len, rows))
    return mx.array([tokens + [0] * (longest - len(tokens)) for tokens in rows])


def rewind(caches: list[Any], lengths: list[int], kept: list[int]) -> None:
    """After `forward` with so many new tokens of each row: keep only the first ones, at least one."""
    layers, tags = _parted(caches)
    held = lengths if by_row(caches) else [max(lengths)] * len(kept)
    back = [length - keep for length, keep in zip(held, kept, strict=True)]
    go_back(layers, back)
    for tag in tags:
        tag.go_back(back)


def go_back(layers: list[Any], tokens: list[int]) -> None:
    """Take the last tokens of each row out of the caches of all layers: so many."""
    if by_row(layers):
        for cache in layers:
            for row, spare in zip(cache.rows, tokens, strict=True):
                row.offset -= spare
        return
    spare = min(tokens)
    right = [back - spare for back in tokens]
    for cache in layers:
        cache.trim(spare)
        if any(right):  # mlx-lm's rows end together: a shorter one gets its padding on the left
            cache.prepare(right_padding=right)
            cache.finalize()
    if any(right) and min(layers[0].left_padding.tolist()) >= _PADDING:
        for cache in layers:
            cache.filter(list(range(len(tokens))))
