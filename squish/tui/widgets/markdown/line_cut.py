"""Where one long line that still grows can be cut, a paragraph or a line of code: between two lines as they are shown,
so that nothing looks different.

How it looks is asked of a function that draws; what is before the cut is not drawn again while the width stays.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from functools import cache

from squish.tui.widgets.markdown.blocks import Blocks, Cut
from squish.tui.widgets.markdown.math_text import MATH
from squish.tui.widgets.markdown.open_markup import ends, open_marks
from squish.tui.widgets.markdown.parsing import parser
from squish.tui.widgets.markdown.reopening import Reopening, start, with_lines

KEPT = 4
_DRAWN = 16  # when its beginnings have been drawn so often, no other place is tried
_TRIES = 8
_KEPT_CHARACTERS = 400
_CODE = ("fence", "code_block")
# A line can begin with a word, or within one that is longer than lines are, as text in Chinese is: where nothing before
# it can be markup.
_BEGINS = re.compile(r"(?<=\s)[^\W\d_]|(?<=[^\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f])[^\W\d_](?=\S{24})")
_LETTER = re.compile(r"\w")

Draw = Callable[[str, Reopening], list[str]]


def cut_line(text: str, opening: Reopening, draw: Draw, limit: int) -> Cut | None:
    """Cut a text that ends with one long line a few shown lines before its end; None where no place looks as good.

    draw: the lines that a text makes. limit: characters beyond which it is cut also where markup is open.
    """
    blocks = Blocks.of(text, opening)
    inner = _inner(blocks)
    if inner is None:
        return None
    is_long = len(opening.shown(text)) > limit
    shown = _Shown(text, opening, draw)
    counts = range(len(shown.lines) - KEPT, max(len(shown.lines) - KEPT - _TRIES, 0), -1)
    if not is_long and counts and _marks(blocks, text) and _marks(blocks, text[: shown.end(counts[-1])]):
        return None  # what is open at the end is open at all these places, or at most of them
    for count in counts:
        end = shown.end(count) if shown.drawn <= _DRAWN else 0
        marks = _marks(blocks, text[:end])
        if end and (is_long or not marks) and shown.looks_so(end, inner):
            return Cut(text[:end], inner.head + text[end:], False, inner, True, marks)
    return None


def cut_anywhere(text: str, opening: Reopening) -> Cut:
    """Cut at the end of a word, or else of anything: it may look different as a whole."""
    blocks, last = Blocks.of(text, opening), len(text) - _KEPT_CHARACTERS
    end = text.rfind(" ", len(opening.head) + 1, last) + 1 or last
    inner = (_inner(blocks) if blocks.path else None) or Reopening()
    inner = blocks.counted(inner, text.count("\n", 0, end))
    return Cut(text[:end], inner.head + text[end:], False, inner, True)


def goes_on(text: str, opening: Reopening, marks: frozenset[str]) -> bool:
    """Whether a text still continues the paragraph that it was cut from. marks: that were open there."""
    if opening.code:
        return True
    tokens = parser().parse(text)
    inlines = [at for at, each in enumerate(tokens) if each.type == "inline"][opening.lines :]
    if not inlines or tokens[inlines[0] - 1].type != "paragraph_open":
        return not inlines
    return not ends(tokens[inlines[0]], marks)


def _inner(blocks: Blocks) -> Reopening | None:
    """The opening of what goes on in the long line; None where there is none."""
    if blocks.leaf not in ("paragraph_open", *_CODE) or blocks.path[-1].markup in MATH:
        return None
    if any(each.strip() for each in blocks.lines[blocks.head : start(blocks.path[-1])]):
        return None
    line = len(blocks.lines) - 1
    inner = blocks.within_leaf(line)
    return blocks.counted(with_lines(inner, blocks.prefix), line) if inner else None


def _marks(blocks: Blocks, text: str) -> frozenset[str]:
    """What is open at the end of a beginning of the text."""
    if blocks.leaf in _CODE:
        return frozenset()
    tokens = blocks.tokens if text == blocks.text else parser().parse(text)
    inlines = [each for each in tokens if each.type == "inline"]
    return open_marks(inlines[-1]) if inlines else frozenset()


class _Shown:
    """How a text is shown. lines: of all of it; drawn: how often anything was."""

    def __init__(self, text: str, opening: Reopening, draw: Draw) -> None:
        self.drawn = 0
        self._text, self._opening, self._drawing = text, opening, draw
        self._draw = cache(self._counted)
        self._begins = [found.start() for found in _BEGINS.finditer(text, len(opening.head) + 1)]
        self._letters = [found.start() for found in _LETTER.finditer(text)]
        self.lines = self._draw(text)
        self._off = 0  # characters that are seen, but are not in the text, as addresses of links are

    def _counted(self, text: str) -> list[str]:
        self.drawn += 1
        return self._drawing(text, self._opening)

    def end(self, count: int) -> int:
        """Where the first so many lines end; 0 where no line can begin there."""
        last = len(self._begins)
        seen = sum(len(_LETTER.findall(line)) for line in self.lines[count:]) - self._off
        at = len(self._letters) - min(max(seen, 1), len(self._letters))
        guess = bisect_left(self._begins, self._letters[at])
        low, high, step = guess, guess, 1  # before `low` it is known to have no more lines, and at `high` to have more
        while low > 0 and not self._fits(low - 1, count):
            high, low, step = low - 1, max(low - step, 0), 2 * step
        if low == guess:
            step = 1
            while high < last and self._fits(high, count):
                low, high, step = high + 1, min(high + step, last), 2 * step
        while low < high:
            middle = (low + high) // 2
            if self._fits(middle, count):
                low = middle + 1
            else:
                high = middle
        end = self._begins[low - 1] if low else 0
        self._off += bisect_left(self._letters, end) - at
        return end

    def _fits(self, at: int, count: int) -> bool:
        return len(self._draw(self._text[: self._begins[at]])) <= count

    def looks_so(self, end: int, inner: Reopening) -> bool:
        """Whether its two parts look as the whole does."""
        rest = self._drawing(inner.head + self._text[end:], inner)
        return self._draw(self._text[:end]) + rest == self.lines
