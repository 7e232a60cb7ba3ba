"""A draft model: a small one of the same tokens, which guesses what the large one will say.

It takes its likeliest tokens one by one; the large one checks them all in one pass. It reads prompts by itself, some
tokens a step, and guesses for a row once it has caught up with it. It belongs to the MLX thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, make_prompt_cache

from squish.errors import ConfigError
from squish.worker.cpu.fusion import caches_by_row
from squish.worker.cpu.kv import BatchCache, SequenceCache

_CHUNK = 256  # tokens of a prompt that are read in one step, for which the large model waits


@dataclass(slots=True)
class _Reading:
    """What the draft model has read of a row: a cache of each layer, and the tokens in them."""

    caches: list[Any]
    tokens: list[int] = field(default_factory=list)


class DraftModel:
    """model: in memory, and changed for the CPU where it can be. vocabulary: ids that the large model knows are below.

    Raises ConfigError where its caches cannot go back to where a guess was wrong.
    """

    def __init__(self, model: Any, vocabulary: int, name: str) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._rows: dict[int, _Reading] = {}
        if not all(isinstance(cache, BatchCache) or type(cache) is KVCache for cache in self._empty()):
            raise ConfigError(
                f"{name} cannot be a draft model here: its layers keep a window or a state, not every token.",
                hint="Take one with plain attention, such as Qwen 3, Llama 3 or SmolLM2.",
                param="draft",
            )

    def keep(self, rows: list[int]) -> None:
        """Forget all rows but these."""
        self._rows = {row: reading for row, reading in self._rows.items() if row in rows}

    def continuation(self, row: int, tokens: list[int], length: int) -> list[int]:
        """Up to `length` tokens that follow; none while it reads. tokens: all that the row has, at least one."""
        if length < 1:
            return []
        reading = self._rows.get(row) or _Reading(self._empty())
        self._rows[row] = reading
        known = self._go_back(reading, tokens)
        if len(tokens) - known > _CHUNK:
            mx.eval(self._read(reading, tokens[known : known + _CHUNK]))
            return []
        guessed: list[int] = []
        last = self._read(reading, tokens[known:])
        while True:
            likeliest: Any = mx.argmax(last).item()
            guessed.append(likeliest)
            if len(guessed) == length or guessed[-1] >= self._vocabulary:
                return [token for token in guessed if token < self._vocabulary]
            last = self._read(reading, guessed[-1:])

    def _empty(self) -> list[Any]:
        caches = caches_by_row(self._model, None) or make_prompt_cache(self._model)
        return [BatchCache([cache]) if isinstance(cache, SequenceCache) else cache for cache in caches]

    def _read(self, reading: _Reading, tokens: list[int]) -> mx.array:
        """Logits after the last of these tokens, not evaluated."""
        for cache in reading.caches:
            if isinstance(cache, BatchCache):
                cache.prepare(lengths=[len(tokens)], ends_only=True)
        logits: mx.array = self._model(mx.array([tokens]), cache=reading.caches)
        for cache in reading.caches:
            if isinstance(cache, BatchCache):
                cache.finalize()
        reading.tokens += tokens
        return logits[0, -1]

    def _go_back(self, reading: _Reading, tokens: list[int]) -> int:
        """To what was read of these tokens, all but one at most; how many those are."""
        same = _common(reading.tokens, tokens[:-1])
        spare = len(reading.tokens) - same
        if spare and not all(_trim(cache, spare) for cache in reading.caches):
            reading.caches, same = self._empty(), 0
        del reading.tokens[same:]
        return same


def _trim(cache: Any, count: int) -> bool:
    """Take the last tokens out of a cache; False where what comes before them is not complete any more."""
    if not isinstance(cache, BatchCache):
        return bool(cache.trim(count) == count)
    [row] = cache.rows
    row.offset -= count
    return row.window is None or row.start <= max(0, row.offset - row.window + 1)


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens at the beginning are the same."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(at for at in range(most) if one[at] != other[at])
