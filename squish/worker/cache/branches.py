"""Where another conversation may part from this one: after its earlier messages. Pure.

A cache that cannot be trimmed serves only the length at which it was kept. A chat that goes on turn by turn is kept
turn by turn; a history that arrives as a whole would be kept at its end alone, and another message in it would cost
all of it once more.
"""

from __future__ import annotations

from collections.abc import Collection

APART = 256
"""Tokens that must lie between two such points, and before the end: fewer are computed nearly as fast."""

PART = 16
"""Of the budget: a cache that takes more than one part of so many is kept at the end of its prompt only."""

_BACK = (1, 2, 3, 5, 8)


def branch_points(tokens: list[int], begin: int, ends: Collection[int]) -> list[int]:
    """Lengths at which a prompt is worth keeping, in order: the last message ends, and some before those.

    begin: tokens that are kept already; ends: tokens with which a message ends.
    """
    found, last = list[int](), len(tokens)
    for length in range(len(tokens) - APART, begin + APART - 1, -1):
        if tokens[length - 1] in ends and last - length >= APART:
            found.append(length)
            last = length
    return sorted(found[back - 1] for back in _BACK if back <= len(found))
