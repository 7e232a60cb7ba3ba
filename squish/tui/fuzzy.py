"""Whether the letters that were written are in a name, one behind the other, and how well they fit it.

Best are letters in one piece, and those with which words begin. Each letter of the name is looked at once for each that
was written: to try every way to spread them, as Textual's own search does, can take longer than anybody waits.
"""

from __future__ import annotations

import re
from itertools import pairwise

_WORD = re.compile(r"\w+")

Places = tuple[int, ...]


def match(written: str, name: str) -> tuple[float, Places]:
    """How well it fits, 0 for not at all; and where its letters are."""
    given, letters = written.lower(), name.lower()
    if not given or len(letters) != len(name):  # a few capitals are two small letters
        return 0.0, ()
    begins = frozenset(each.start() for each in _WORD.finditer(letters))
    if places := _in_one_piece(given, letters, begins):
        return _score(places, begins) * (2.0 if given == letters else 1.5), places
    places = _spread(given, letters, begins)
    return (_score(places, begins), places) if places else (0.0, ())


def _in_one_piece(given: str, letters: str, begins: frozenset[int]) -> Places:
    """Where a word begins with it, or else where it is first."""
    found = [each.start() for each in re.finditer(f"(?={re.escape(given)})", letters)]
    at = next((each for each in found if each in begins), found[0] if found else None)
    return () if at is None else tuple(range(at, at + len(given)))


def _spread(given: str, letters: str, begins: frozenset[int]) -> Places:
    """As many of them beside each other, and at the beginnings of words, as there can be."""
    at = -1
    for letter in given:
        if (at := letters.find(letter, at + 1)) < 0:
            return ()
    ends: dict[int, tuple[int, Places]] = {-1: (0, ())}  # by the last place: how good, and all places
    for letter in given:
        longer, best = dict[int, tuple[int, Places]](), ends.get(-1)
        for at, each in enumerate(letters):
            beside = ends.get(at - 1) if at else None
            ways = [(beside[0] + 1, beside[1])] if beside else []
            ways += [best] if best else []
            if each == letter and ways:
                value, places = max(ways, key=lambda way: way[0])
                longer[at] = (value + (at in begins), (*places, at))
            best = max(filter(None, (best, beside)), key=lambda way: way[0], default=None)
        ends = longer
    return max(ends.values(), key=lambda way: way[0])[1]


def _score(places: Places, begins: frozenset[int]) -> float:
    pieces = 1 + sum(after != before + 1 for before, after in pairwise(places))
    together = (len(places) - (pieces - 1)) / len(places)
    return (len(places) + len(begins.intersection(places))) * (1 + together * together)
