"""Where a text that still grows can be cut, so that what is before the cut need never be looked at again. Pure text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markdown_it.token import Token

from squish.tui.widgets.markdown.document import parser
from squish.tui.widgets.markdown.reopening import CLOSED, ITEM, LISTS, Reopening, prefix, start, with_lines, within

FENCE_LINES = 24
LIMIT = 3000
"""Characters that are kept together where no good place for a cut is among them."""
_KEPT = 4
_KEPT_CHARACTERS = 400
_CONTAINERS = ("blockquote_open", ITEM, *LISTS)
_LEAVES = ("fence", "code_block", "table_open")


@dataclass(frozen=True, slots=True)
class Cut:
    """done and rest: both complete Markdown; gap: whether an empty line is between them. opening: of the rest.

    rough: it may look different as a whole.
    """

    done: str
    rest: str
    gap: bool
    opening: Reopening
    rough: bool = False


def cut(text: str, opening: Reopening = CLOSED, limit: int = LIMIT) -> Cut | None:
    """Cut before the block that may still grow, and within it where it is long; None where all of it may change.

    opening: how the text begins. What is longer than the limit is cut anyhow.
    """
    tokens = parser().parse(text)
    path, lines = _path(tokens), text.splitlines(keepends=True)
    head = opening.head.count("\n")
    found = None
    for depth, block in enumerate(path):
        if any(each.strip() for each in lines[head : start(block)]):
            found = _before(block, path[:depth], tokens, lines, opening)
            break
    else:
        found = _in_leaf(path, tokens, lines, opening) if path else None
    if found is None and len(opening.shown(text)) > limit:
        found = _anywhere(text, path, tokens, lines, opening)
    return found


def _path(tokens: Sequence[Token]) -> list[Token]:
    """The last block, and in it the last one, and so on."""
    path, begin = list[Token](), 0
    while True:
        level = len(path)
        at = [
            at
            for at in range(begin, len(tokens))
            if tokens[at].level == level and tokens[at].map and tokens[at].nesting >= 0 and tokens[at].type != "inline"
        ]
        if not at:
            return path
        path.append(tokens[at[-1]])
        begin = at[-1] + 1
        if path[-1].type not in _CONTAINERS:
            return path


def _before(
    block: Token, around: Sequence[Token], tokens: Sequence[Token], lines: Sequence[str], opening: Reopening
) -> Cut | None:
    """Cut before a block. around: the blocks that it is in."""
    inner, at = within(around, tokens, lines, opening), start(block)
    gap = not around and any(each.map and start(each) < at for each in tokens)  # else nothing is shown above it
    return _cut(at, inner, tokens, lines, opening, gap) if inner else None


def _in_leaf(path: Sequence[Token], tokens: Sequence[Token], lines: Sequence[str], opening: Reopening) -> Cut | None:
    """Cut within a long block that is code or a table."""
    inner, head = within(path, tokens, lines, opening), opening.head.count("\n")
    if inner is None or len(lines) <= FENCE_LINES + _KEPT or path[-1].type not in _LEAVES:
        return None
    for at in range(len(lines) - _KEPT, max(len(lines) - FENCE_LINES, head), -1):
        if all(each.strip(" \t>\n") for each in lines[at - 1 : at + 1]):  # empty lines at the end of code are not drawn
            return _cut(at, _in_block(path, at, lines, inner), tokens, lines, opening)
    return None


def _in_block(path: Sequence[Token], at: int, lines: Sequence[str], inner: Reopening) -> Reopening:
    """How what comes from a line on goes on in the code or the table that it is in."""
    first = start(path[-1])
    if path[-1].type == "fence":
        return replace(with_lines(inner, _line(path, lines)), code=True)
    if path[-1].type == "table_open" and at > first + 1:
        return replace(with_lines(inner, _line(path, lines), lines[first + 1]), table=True)
    return inner


def _line(path: Sequence[Token], lines: Sequence[str]) -> str:
    """The first line of the last block of a path, without the markers of items that begin in it."""
    first = start(path[-1])
    line, items = lines[first], sum(each.type == ITEM and start(each) == first for each in path)
    before = prefix(line, items)
    return before + line[len(before) :]


def _cut(
    at: int, inner: Reopening, tokens: Sequence[Token], lines: Sequence[str], opening: Reopening, gap: bool = False
) -> Cut:
    return Cut("".join(lines[:at]), inner.head + "".join(lines[at:]), gap, _counted(inner, at, tokens, opening))


def _counted(inner: Reopening, at: int, tokens: Sequence[Token], opening: Reopening) -> Reopening:
    """With the number of blocks of code that begin before a line."""
    begun = sum(each.type == "fence" and start(each) < at for each in tokens)
    return replace(inner, fences=opening.fences + begun - (opening.code and begun > 0))


def _anywhere(
    text: str, path: Sequence[Token], tokens: Sequence[Token], lines: Sequence[str], opening: Reopening
) -> Cut:
    """Cut at the end of a line, or else of a word, near the end; what is around it goes on if that can be."""
    inner, last = within(path, tokens, lines, opening) or CLOSED, len(text) - _KEPT_CHARACTERS
    at = text.rfind("\n", len(opening.head) + 1, last) + 1
    if path:
        inner = _in_block(path, text.count("\n", 0, at), lines, inner)
    if not at:
        at = text.rfind(" ", len(opening.head) + 1, last) + 1 or last
        first = start(path[-1]) if path else 0
        items = sum(each.type == ITEM and start(each) == first for each in path)
        inner = with_lines(inner, prefix(lines[first], items))
    inner = _counted(inner, text.count("\n", 0, at), tokens, opening)
    return Cut(text[:at], inner.head + text[at:], False, inner, rough=True)
