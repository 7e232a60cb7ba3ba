"""How much a row may guess: as long as its guesses come true, and hardly anything where they do not.

A position that is checked in vain costs a part of a pass and gives nothing. So each row has credit for a few of them:
wrong guesses use it up, right ones and a long answer give it back. What a row can lose is bounded by its length,
whatever it writes.
"""

from __future__ import annotations

SHORT = 3  # with the token before it four positions, which a pass computes for little more than one
LONG = 7
_CREDIT = 4 * SHORT
_EARNED = 2  # by a token that was right
_REGAINED = 1 / 16  # by a token of the answer


class Budget:
    """One row's. Credit and lengths are in tokens."""

    def __init__(self) -> None:
        self._credit: float = _CREDIT
        self._length = SHORT

    @property
    def length(self) -> int:
        """How long the next guess may be; 0 for none."""
        return self._length if self._credit >= self._length else SHORT if self._credit >= SHORT else 0

    def wrote(self, tokens: int) -> None:
        """The answer has become longer."""
        self._credit = min(_CREDIT, self._credit + tokens * _REGAINED)

    def judged(self, guessed: int, right: int) -> None:
        """So many of the tokens that were guessed were right."""
        self._credit = min(_CREDIT, self._credit + right * _EARNED - (guessed - right))
        self._length = LONG if guessed and right == guessed else SHORT
