"""Markup that has begun in a piece of a paragraph and may still end in what follows. Pure text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markdown_it.token import Token

_BREAKS = ("softbreak", "hardbreak")


@dataclass(frozen=True, slots=True)
class _Mark:
    """raw: it ends whatever the text means in which it stands."""

    opens: re.Pattern[str]
    closes: re.Pattern[str]
    raw: bool = False


_MARKS = {
    "*": _Mark(re.compile(r"\*(?=[^*\s])"), re.compile(r"(?<=[^*\s])\*")),
    "_": _Mark(re.compile(r"(?<![^\W_])_+(?=[^_\s])"), re.compile(r"(?<=[^_\s])_+(?![^\W_])")),
    "~~": _Mark(re.compile(r"~~(?=\S)"), re.compile(r"(?<=\S)~~")),
    "`": _Mark(re.compile("`"), re.compile("`"), raw=True),
    "$$": _Mark(re.compile(r"\$\$"), re.compile(r"\$\$"), raw=True),
    r"\(": _Mark(re.compile(r"\\\("), re.compile(r"\\\)"), raw=True),
    r"\[": _Mark(re.compile(r"\\\["), re.compile(r"\\\]"), raw=True),
}
_BRACKET = "["


def open_marks(inline: Token) -> frozenset[str]:
    """What is open at the end of a paragraph."""
    words = _words(inline.children or ())
    found = {name for name, mark in _MARKS.items() if mark.opens.search(words)}
    return frozenset(found | {_BRACKET} if _unclosed(words, "[", "]") else found)


def ends(inline: Token, marks: frozenset[str]) -> bool:
    """Whether a paragraph may end some of the markup that was open in front of it."""
    words = _words(inline.children or ())
    if _BRACKET in marks and _unclosed(words[::-1], "]", "["):
        return True
    known = [_MARKS[name] for name in marks if name != _BRACKET]
    return any(mark.closes.search(inline.content if mark.raw else words) for mark in known)


def _words(children: Sequence[Token]) -> str:
    """The text, with a letter in the place of all markup."""
    return "".join(each.content if each.type == "text" else " " if each.type in _BREAKS else "x" for each in children)


def _unclosed(words: str, opens: str, closes: str) -> bool:
    depth = 0
    for each in re.findall(r"[\[\]]", words):
        depth = depth + 1 if each == opens else max(depth - 1, 0)
    return depth > 0
