"""How much a row may guess: as long as its guesses come true, and hardly anything where they do not.

A position that is checked in vain costs a part of a pass and gives nothing. So each row has credit for a few of them:
wrong guesses use it up, right ones and a long answer give it back. What a row can lose is bounded by its length,
whatever it writes; it begins with little, because an answer may be short.
"""

from __future__ import annotations

LENGTHS = (1, 3, 7)
"""Of a guess. With the token before it these are 2, 4 and 8 positions: a pass over an odd number takes as long."""
_FIRST = 2
_MOST = 12
_EARNED = 2  # by a token that was right
_REGAINED = 1 / 16  # by a token of the answer


class Budget:
    """One row's. Credit and lengths are in tokens."""

    def __init__(self) -> None:
        self._credit: float = _FIRST
        self._step = 0  # of LENGTHS

    @property
    def length(self) -> int:
        """How long the next guess may be; 0 for none."""
        for length in LENGTHS[self._step :: -1]:
            if length <= self._credit:
                return length
        return 0

    def wrote(self, tokens: int) -> None:
        """The answer has become longer."""
        self._credit += tokens * _REGAINED
        if self._credit > _MOST:
            self._credit = _MOST

    def judged(self, guessed: int, right: int) -> None:
        """So many of the tokens that were guessed were right."""
        self._credit = min(_MOST, self._credit + right * _EARNED - (guessed - right))
        if right < guessed:
            self._step = min(self._step, 1) if right else 0
        elif guessed:
            self._step = min(self._step + 1, len(LENGTHS) - 1)
