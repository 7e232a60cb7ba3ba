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
    draw = cache(draw)
    whole = draw(text)
    for count in range(len(whole) - KEPT, max(len(whole) - KEPT - _TRIES, 0), -1):
        end = _end_of(text, count, draw)
        if end and _is_safe(text[:end]) and text[end].isalpha() and draw(text[:end]) + draw(text[end:]) == whole:
            return Cut(text[:end], text[end:], False, CLOSED, rough=True)
    return None


def _is_paragraph(text: str) -> bool:
    return [token.type for token in parser().parse(text) if token.level == 0] == ["paragraph_open", "paragraph_close"]


def _end_of(text: str, lines: int, draw: Draw) -> int:
    """Where the word begins that is the first after so many lines; 0 where none does."""
    starts = [found.end() for found in _SPACES.finditer(text) if found.end() < len(text)]
    low, high = 0, len(starts)  # of what ends before starts[:low] it is known that it has no more lines
    while low < high:
        middle = (low + high) // 2
        if len(draw(text[: starts[middle]])) <= lines:
            low = middle + 1
        else:
            high = middle
    return starts[low - 1] if low else 0


def _is_safe(text: str) -> bool:
    """Whether all markup in it has come to its end."""
    inline = next(token for token in parser().parse(text) if token.type == "inline")
    return not any(each.type == "text" and _OPENS.search(each.content) for each in inline.children or ())
