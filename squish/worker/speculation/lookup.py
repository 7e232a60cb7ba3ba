"""Prompt lookup: how a row's text is likely to go on, because the same tokens stood in it before.

It knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GRAM = 3  # tokens that must be the same before anything is guessed
_LONGEST = 32  # further tokens before those, by which the best of several places is chosen


class Lookup:
    """The tokens of one row so far: its prompt and its answer."""

    def __init__(self) -> None:
        self._tokens = np.empty(1024, np.int32)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, tokens: Sequence[int]) -> None:
        """The row has become longer."""
        end = self._length + len(tokens)
        if end > len(self._tokens):
            self._tokens = np.resize(self._tokens, 2 * end)
        self._tokens[self._length : end] = tokens
        self._length = end

    def continuation(self, length: int) -> list[int]:
        """`length` tokens that are likely to follow; none where the last ones are new.

        Of all places with the same last tokens it takes the one where the most before them is the same too; of those,
        the latest. What repeats itself is taken to go on doing so.
        """
        known = self._tokens[: self._length]
        if length < 1 or len(known) <= GRAM:
            return []
        places = np.flatnonzero(known[GRAM - 1 : -1] == known[-1])
        for back in range(1, GRAM):
            places = places[known[places + GRAM - 1 - back] == known[-1 - back]]
        if not len(places):
            return []
        for back in range(1, _LONGEST):
            longer = places[places >= back]
            longer = longer[known[longer - back] == known[-GRAM - back]] if len(longer) else longer
            if not len(longer):
                break
            places = longer
        follows = known[places[-1] + GRAM :]
        guessed: list[int] = np.resize(follows, length).tolist()
        return guessed
