"""How a text is opened again after a cut, so that what was open at the cut goes on in it. Pure text.

In front of the rest of a nested list come the markers of the items around it, in front of rows a table's header and
those rows that decide how wide its columns are, in front of code the line that begins it. These lines, the head, are
read by the parser and not shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported with the first answer
    from markdown_it.token import Token

ITEM = "list_item_open"
LISTS = ("bullet_list_open", "ordered_list_open")
# What stands in an item of the head: an empty heading, since nothing that follows can become a part of it.
_FILLING = "#"
_MARKER = re.compile(r"[ >]*(?:[-*+]|\d{1,9}[.)])(?= |\n|$)")
_PREFIX = re.compile(r"[ >]*")


@dataclass(frozen=True, slots=True)
class Reopening:
    """How a text begins. items: how many items of lists its head opens, in how many lines of items.

    numbers: of the first item of each list that is open, the outermost first; 0 where it has none.
    code: its first block of code goes on with the one before it. rows: of its first table, which goes on with the one
    before it, that its head has again. fences: blocks of code in what came before.
    """

    head: str = ""
    items: int = 0
    lines: int = 0
    numbers: tuple[int, ...] = ()
    code: bool = False
    rows: int = 0
    fences: int = 0

    def shown(self, text: str) -> str:
        """A text without its head."""
        return text[len(self.head) :]


CLOSED = Reopening()


def start(token: Token) -> int:
    """The line at which a block begins."""
    return token.map[0] if token.map else 0


def within(path: Sequence[Token], tokens: Sequence[Token], lines: Sequence[str], before: Reopening) -> Reopening | None:
    """The opening of what goes on within the blocks of a path; None where no head does that.

    before: how the text itself begins, in whose first lines the path begins.
    """
    items = [each for each in path if each.type == ITEM]
    at = [start(each) for each in items]
    head = list[str]()
    for line in dict.fromkeys(at):
        written = _item_line(lines[line], at.count(line))
        if written is None:
            return None
        head.append(written)
    lists = [each for each in path if each.type in LISTS]
    numbers = tuple(_number(each, tokens, before.numbers[at : at + 1]) for at, each in enumerate(lists))
    return Reopening("".join(head), len(items), len(head), numbers)


def with_lines(opening: Reopening, *lines: str) -> Reopening:
    """With more lines at the end of its head."""
    return replace(opening, head=opening.head + "".join(lines))


def prefix(line: str, items: int) -> str:
    """What a line has to begin with to go on within the blocks that a line opens. items: that begin in that line."""
    end = 0
    for _ in range(items):
        if (marker := _MARKER.match(line, end)) is None:
            return ""
        end = marker.end() + (line[marker.end() :].strip(" \n") != "")
    found = _PREFIX.match(line, end)
    return re.sub("[^>]", " ", line[: found.end() if found else end])


def _item_line(line: str, items: int) -> str | None:
    """The same markers without what is behind them; what follows is indented as it was."""
    end = 0
    for _ in range(items):
        if (marker := _MARKER.match(line, end)) is None:
            return None
        end = marker.end()
    spaces = len(line[end:]) - len(line[end:].lstrip(" "))
    return line[:end] + " " * (spaces if 1 <= spaces <= 4 and line[end:].strip() else 1) + _FILLING + "\n"


def _number(list_: Token, tokens: Sequence[Token], known: tuple[int, ...]) -> int:
    """Of the last item that a list has now."""
    if list_.type != "ordered_list_open":
        return 0
    first = known[0] if known else int(list_.attrs.get("start", 1))
    at = next(at for at, each in enumerate(tokens) if each is list_)
    return first + sum(each.type == ITEM and each.level == list_.level + 1 for each in tokens[at:]) - 1
