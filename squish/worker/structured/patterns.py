"""Patterns with look-ahead at their beginning, as several patterns without, all of which have to match. Pure.

The engine's expressions have no look-around. What stands right behind `^` is a condition on the whole text, so it can
be a pattern of its own; a negated one, where its opposite can be written down. None of them matches more than before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_LOOK_AROUND = re.compile(r"(?<!\\)(?:\\\\)*\((?:\?=|\?!|\?<=|\?<!)")
_SPECIAL = r".^$*+?()[]{}|\/"
_ONE = rf"(?:\[\^?\]?(?:\\.|[^\]\\])*\]|\\.|[^{re.escape(_SPECIAL)}])"
_NOT_HERE = re.compile(rf"\^?({_ONE})")
_NOWHERE = re.compile(rf"\^?\.\*({_ONE})")
_NOWHERE_PAIR = re.compile(rf"\^?\.\*({_ONE})({_ONE})")
_NOT_ALL = re.compile(rf"\^?({_ONE})([*+])\$")

_LONGEST = 2000  # characters of a pattern that is worth a look

_KNOWN: Mapping[str, str] = {
    # ISO 8601 durations, as Zod has them
    r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$": (
        r"^P(?:\d+W|(?:\d+Y(?:\d+M)?(?:\d+D)?|\d+M(?:\d+D)?|\d+D)"
        r"(?:T(?:\d+H(?:\d+M)?(?:\d+(?:[.,]\d+)?S)?|\d+M(?:\d+(?:[.,]\d+)?S)?|\d+(?:[.,]\d+)?S))?"
        r"|T(?:\d+H(?:\d+M)?(?:\d+(?:[.,]\d+)?S)?|\d+M(?:\d+(?:[.,]\d+)?S)?|\d+(?:[.,]\d+)?S))$"
    ),
}
"""Patterns of common libraries that look ahead in their middle, and the same without."""


def without_look_ahead(pattern: str) -> list[str] | None:
    """Patterns that together match what this one matches, or less; None where there are none that are known."""
    if pattern in _KNOWN:
        return [_KNOWN[pattern]]
    if len(pattern) > _LONGEST or not pattern.startswith("^") or "|" in _outside_groups(pattern):
        return None
    conditions: list[str] = []
    at = 1
    while pattern.startswith(("(?=", "(?!"), at):
        end = _closing(pattern, at)
        inner = pattern[at + 3 : end]
        condition = _beginning(inner) if pattern[at + 2] == "=" else _opposite(inner)
        if condition is None or _LOOK_AROUND.search(inner):
            return None
        conditions.append(condition)
        at = end + 1
    rest = pattern[at:]
    if not conditions or _LOOK_AROUND.search(rest):
        return None
    return [f"^{rest}", *conditions]


def _beginning(inner: str) -> str:
    if inner.endswith("$") and not inner.endswith("\\$") and "|" not in _outside_groups(inner):
        return f"^(?:{inner[:-1]})$"
    return f"^(?:{inner})"


def _opposite(inner: str) -> str | None:
    """What holds where this does not match at the beginning."""
    if found := _NOT_HERE.fullmatch(inner):
        return rf"^(?:{_other(found[1])}[\s\S]*)?$"
    if found := _NOWHERE.fullmatch(inner):
        return rf"^{_other(found[1])}*$"
    if found := _NOT_ALL.fullmatch(inner):
        somewhere = rf"[\s\S]*{_other(found[1])}[\s\S]*"
        return rf"^{somewhere}$" if found[2] == "*" else rf"^(?:{somewhere})?$"
    if (found := _NOWHERE_PAIR.fullmatch(inner)) and not any(part.startswith("[") for part in found.groups()):
        first, second = found[1], found[2]
        if re.match(r"\\[A-Za-z]", first) or re.match(r"\\[A-Za-z]", second):  # a class, of which both may be
            return None
        if first == second:
            return f"^(?:{first}?{_other(first)})*{first}?$"
        return f"^(?:{_other(first)}|{first}+{_other(first + second)})*{first}*$"
    return None


def _other(one: str) -> str:
    """Any character but these."""
    if not one.startswith("["):
        return f"[^{one}]"
    return f"[{one[2:]}" if one.startswith("[^") else f"[^{one[1:]}"


def _outside_groups(pattern: str) -> str:
    return "".join(character for _, character, depth in _walk(pattern) if depth == 0)


def _closing(pattern: str, start: int) -> int:
    """Where the group that begins at start ends; the end of the pattern when it does not."""
    level: int | None = None
    for at, character, depth in _walk(pattern):
        if at == start:
            level = depth
        elif level is not None and character == ")" and depth == level:
            return at
    return len(pattern)


def _walk(pattern: str) -> Iterator[tuple[int, str, int]]:
    """Each character that is not escaped and in no class, with how many groups it stands in; a bracket stands outside
    of its own group."""
    depth, at = 0, 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            at += 2
            continue
        if character == "[":
            at = _end_of_class(pattern, at) + 1
            continue
        depth -= character == ")"
        yield at, character, depth
        depth += character == "("
        at += 1


def _end_of_class(pattern: str, at: int) -> int:
    at += 2 if pattern.startswith("[^", at) else 1
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at
