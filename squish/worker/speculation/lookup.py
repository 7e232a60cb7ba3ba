"""Prompt lookup: how a row's text is likely to go on, because the same tokens stood in it before.

Most steps of most answers find nothing, so to know that takes one look into a set, however long the text is; only what
is there is searched for. It knows nothing of models.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

GRAM = 3  # tokens that must be the same before anything is guessed
_LONGEST = 32  # further tokens before those, by which the best of several places is chosen
_BITS = 21  # of a token in a key; where a vocabulary is larger, more is searched for than is there
_KEY = (1 << GRAM * _BITS) - 1


class Lookup:
    """The tokens of one row so far: its prompt and its answer."""

    def __init__(self) -> None:
        self._tokens = array("i")
        self._last = 0  # key of the last GRAM tokens
        self._before: set[int] = set()  # keys of all that end before the last token

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, tokens: Sequence[int]) -> None:
        """The row has become longer."""
        last, before = self._last, self._before
        for token in tokens:
            before.add(last)
            last = (last << _BITS | token) & _KEY
        self._last = last
        self._tokens.extend(tokens)

    def continuation(self, length: int) -> list[int]:
        """`length` tokens that are likely to follow; none where the last ones are new.

        Of all places with the same last tokens it takes the one where the most before them is the same too; of those,
        the latest. What repeats itself is taken to go on doing so.
        """
        if length < 1 or self._last not in self._before:
            return []
        return _continued(np.frombuffer(self._tokens, np.int32), length)


def _continued(known: np.ndarray, length: int) -> list[int]:
    """The same, by a search of the whole text."""
    if len(known) <= GRAM:
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
    guessed: list[int] = np.resize(known[places[-1] + GRAM :], length).tolist()
    return guessed
