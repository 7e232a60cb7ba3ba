"""Where a text that still grows can be cut between two of its lines, so that what is before the cut need never be
looked at again. Pure text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from squish.tui.widgets.markdown.blocks import Blocks, Cut
from squish.tui.widgets.markdown.reopening import CLOSED, Reopening, start

FENCE_LINES = 24
LIMIT = 3000
"""Characters that are kept together where a text is short in lines."""
_KEPT = 4
_CODE = ("fence", "code_block")
_UNCERTAIN = re.compile(r"[-\s>*+_=#`~|:$\\\d.)]*|[\s>]*(?:\\\[|\$\$).*")


def cut(text: str, opening: Reopening = CLOSED, limit: int = LIMIT) -> Cut | None:
    """Cut before the block that may still grow, and within it where it is long; None where all of it may change.

    opening: how the text begins.
    """
    blocks = Blocks.of(text, opening)
    for depth, block in enumerate(blocks.path):
        if any(each.strip() for each in blocks.lines[blocks.head : start(block)]):
            return _before(blocks, depth) if _is_certain(blocks.lines[start(block) :]) else None
    return _in_leaf(blocks, limit)


def _is_certain(lines: Sequence[str]) -> bool:
    """Whether a block is what it seems to be: a line that begins with `*` may become an item or bold text, one with `4`
    an item or a paragraph, one with `\\[` a formula of several lines or of one."""
    return len(lines) > 1 or lines[0].endswith("\n") or not _UNCERTAIN.fullmatch(lines[0])


def _before(blocks: Blocks, depth: int) -> Cut | None:
    """Cut before a block of the path."""
    inner, at = blocks.within(depth), start(blocks.path[depth])
    gap = depth == 0 and any(each.map and start(each) < at for each in blocks.tokens)  # else nothing is shown above it
    return blocks.cut(at, inner, gap) if inner else None


def _in_leaf(blocks: Blocks, limit: int) -> Cut | None:
    """Cut within a long block that is code or a table, or where nothing is shown."""
    lines, first, last = blocks.lines, blocks.head + 1, len(blocks.lines) - _KEPT
    if blocks.leaf == "table_open":
        first = max(first, start(blocks.path[-1]) + 3 + blocks.sample)  # more rows than decide, as in the whole
    elif blocks.path and blocks.leaf not in _CODE:
        return None
    if len(lines) <= FENCE_LINES + _KEPT:
        if len(blocks.opening.shown(blocks.text)) <= limit:
            return None
        last = len(lines) - 2  # long lines: the last one may still be a part of something else
    for at in range(last, max(first, last - FENCE_LINES) - 1, -1):
        if not blocks.path:
            return blocks.cut(at, CLOSED)
        if _is_within_code(blocks, at) and (inner := blocks.within_leaf(at)):
            return blocks.cut(at, inner)
    return None


def _is_within_code(blocks: Blocks, at: int) -> bool:
    """Whether the lines around a cut are drawn: empty ones at the end of code are not, unless a fence is still open."""
    around = blocks.lines[at if blocks.leaf == "fence" else at - 1 : at + 1]
    return all(each.strip(" \t>\n") for each in around)
