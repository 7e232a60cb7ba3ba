"""The blocks of a text that still grows, as its cuts see them. Pure text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markdown_it.token import Token

from squish.tui.widgets.markdown.parsing import parser, sample_rows
from squish.tui.widgets.markdown.reopening import ITEM, LISTS, Reopening, prefix, start, with_lines, within

_CONTAINERS = ("blockquote_open", ITEM, *LISTS)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True, slots=True)
class Cut:
    """done and rest: both complete Markdown; gap: whether an empty line is between them. opening: of the rest.

    flows: it is within a line; marks: of markup that is open there.
    """

    done: str
    rest: str
    gap: bool
    opening: Reopening
    flows: bool = False
    marks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Blocks:
    """A text and how it was read. opening: how it begins. path: its last block, in that the last one, and so on."""

    text: str
    opening: Reopening
    tokens: Sequence[Token]
    lines: Sequence[str]
    path: Sequence[Token]

    @classmethod
    def of(cls, text: str, opening: Reopening) -> Blocks:
        tokens = parser().parse(text)
        return cls(text, opening, tokens, _LINE.findall(text), _path(tokens))

    @property
    def head(self) -> int:
        """Lines that only open the text again."""
        return self.opening.head.count("\n")

    @property
    def leaf(self) -> str:
        """What the last block is, if it has no blocks in it."""
        return self.path[-1].type if self.path and self.path[-1].type not in _CONTAINERS else ""

    def within(self, depth: int) -> Reopening | None:
        """The opening of what goes on in so many blocks of the path; None where no head does that."""
        return within(self.path[:depth], self.tokens, self.lines, self.opening)

    def within_leaf(self, line: int) -> Reopening | None:
        """The opening of what comes from a line on in the code or the table that it is in."""
        inner, first = self.within(len(self.path)), start(self.path[-1])
        if inner is None:
            return None
        if self.leaf == "fence":
            return replace(with_lines(inner, self._first_line), code=True)
        if self.leaf == "table_open":
            end = first + 2 + self.sample
            return replace(with_lines(inner, self._first_line, *self.lines[first + 1 : end]), rows=self.sample)
        return inner

    @property
    def sample(self) -> int:
        """Rows of a table that come again in each head."""
        return self.opening.rows or sample_rows(self.tokens, self._index(self.path[-1]))

    def _index(self, token: Token) -> int:
        return next(at for at, each in enumerate(self.tokens) if each is token)

    @property
    def _first_line(self) -> str:
        """The first line of the last block, without the markers of items that begin in it."""
        line, before = self.lines[start(self.path[-1])], self.prefix
        return before + line[len(before) :]

    @property
    def prefix(self) -> str:
        """What a line has to begin with to go on in the last block."""
        first = start(self.path[-1])
        return prefix(self.lines[first], sum(each.type == ITEM and start(each) == first for each in self.path))

    def cut(self, line: int, inner: Reopening, gap: bool = False) -> Cut:
        """Cut in front of a line. inner: the opening of what comes there."""
        done, rest = "".join(self.lines[:line]), "".join(self.lines[line:])
        return Cut(done, inner.head + rest, gap, self.counted(inner, line))

    def counted(self, inner: Reopening, line: int) -> Reopening:
        """With the number of blocks of code that begin before a line."""
        begun = sum(each.type == "fence" and start(each) < line for each in self.tokens)
        return replace(inner, fences=self.opening.fences + begun - (self.opening.code and begun > 0))


def _path(tokens: Sequence[Token]) -> list[Token]:
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
