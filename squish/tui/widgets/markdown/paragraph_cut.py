"""Where a long paragraph that still grows can be cut: between two of its lines, so that nothing looks different.

How it looks is asked of a function that draws; what is before the cut is never drawn again while the width stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from squish.tui.widgets.markdown.cut import Cut
from squish.tui.widgets.markdown.document import parser
from squish.tui.widgets.markdown.reopening import CLOSED

KEPT = 4
_DRAWN = 16  # when its beginnings have been drawn so often, no other place is tried
_TRIES = 8
_SPACES = re.compile(r"\s+")
# Characters that something further on may still make markup of.
_OPENS = re.compile(r"(?<!\w)[*_~]+(?=\S)|\w[*~]+(?=\S)|[`\[$]|<(?=[A-Za-z/])|\\[(\[]")

Draw = Callable[[str], list[str]]


def cut_paragraph(text: str, draw: Draw) -> Cut | None:
    """Cut a text that is one paragraph a few lines before its end; None where it is something else, or no place is
    safe. draw: the lines that a text makes."""
    if not _is_paragraph(text):
        return None
    ends = _Ends(text, draw)
    counts = range(len(ends.lines) - KEPT, max(len(ends.lines) - KEPT - _TRIES, 0), -1)
    if counts and not _is_safe(text) and not _is_safe(text[: ends.after(counts[-1])]):
        return None  # what is open at the end is open at all these places, or at most of them
    for count in counts:
        if ends.drawn > _DRAWN:
            return None
        end = ends.after(count)
        if end and _is_safe(text[:end]) and text[end].isalpha() and ends.look_as_whole(end):
            return Cut(text[:end], text[end:], False, CLOSED, rough=True)
    return None


def _is_paragraph(text: str) -> bool:
    return [token.type for token in parser().parse(text) if token.level == 0] == ["paragraph_open", "paragraph_close"]


class _Ends:
    """Where a word begins that is the first of a line. lines: of the whole text; drawn: how often anything was."""

    def __init__(self, text: str, draw: Draw) -> None:
        self.drawn = 0
        self._text, self._drawing = text, draw
        self._draw = cache(self._counted)
        self._starts = [found.end() for found in _SPACES.finditer(text) if found.end() < len(text)]
        self.lines = self._draw(text)
        self._words = [len(line.split()) for line in self.lines]
        self._off = 0  # words that are seen, but are not in the text, as addresses of links are

    def _counted(self, text: str) -> list[str]:
        self.drawn += 1
        return self._drawing(text)

    def after(self, lines: int) -> int:
        """The end of so many lines; 0 where no word begins there."""
        last = len(self._starts)
        guess = min(max(last - sum(self._words[lines:]) + self._off, 0), last)
        low, high, step = guess, guess, 1  # before `low` it is known to have no more lines, and at `high` to have more
        while low > 0 and not self._fits(low - 1, lines):
            high, low, step = low - 1, max(low - step, 0), 2 * step
        if low == guess:
            step = 1
            while high < last and self._fits(high, lines):
                low, high, step = high + 1, min(high + step, last), 2 * step
        while low < high:
            middle = (low + high) // 2
            if self._fits(middle, lines):
                low = middle + 1
            else:
                high = middle
        self._off += low - guess
        return self._starts[low - 1] if low else 0

    def _fits(self, at: int, lines: int) -> bool:
        return len(self._draw(self._text[: self._starts[at]])) <= lines

    def look_as_whole(self, end: int) -> bool:
        return self._draw(self._text[:end]) + self._draw(self._text[end:]) == self.lines


def _is_safe(text: str) -> bool:
    """Whether all markup in it has come to its end."""
    inline = next((token for token in parser().parse(text) if token.type == "inline"), None)
    return inline is not None and not any(
        each.type == "text" and _OPENS.search(each.content) for each in inline.children or ()
    )
