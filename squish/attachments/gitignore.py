"""Which files of a folder a repository leaves out: the patterns of `.gitignore`, as far as folders need them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_LONGEST = 1000  # characters of a pattern, and patterns of a file, that are looked at


@dataclass(frozen=True, slots=True)
class Pattern:
    """base: the folder that it stands in, relative to the one that is walked, as `a/b/` or empty."""

    base: str
    matches: re.Pattern[str]
    directories_only: bool
    negated: bool


def patterns(text: str, base: str = "") -> tuple[Pattern, ...]:
    """Those of one .gitignore."""
    return tuple(found for line in text.splitlines()[:_LONGEST] if (found := _pattern(line, base)))


def is_ignored(path: str, is_directory: bool, known: Iterable[Pattern]) -> bool:
    """path: relative, with slashes. known: those of outer folders first; the last that matches decides."""
    ignored = False
    for each in known:
        concerns = path.startswith(each.base) and (is_directory or not each.directories_only)
        if concerns and each.matches.fullmatch(path[len(each.base) :]):
            ignored = not each.negated
    return ignored


def _pattern(line: str, base: str) -> Pattern | None:
    line = line.rstrip()
    if not line or line.startswith("#") or len(line) > _LONGEST:
        return None
    negated = line.startswith("!")
    line = line[negated:].removeprefix("\\")
    directories_only = line.endswith("/")
    line = line.rstrip("/")
    anywhere = "/" not in line
    try:
        matches = re.compile(("(?:.*/)?" if anywhere else "") + _expression(line.removeprefix("/")))
    except re.error:
        return None
    return Pattern(base, matches, directories_only, negated)


def _expression(pattern: str) -> str:
    """A glob as a regular expression: `*` and `?` stop at a slash, `**` does not."""
    found, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            found, at = found + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            found, at = found + ".*", at + 2
        elif pattern[at] in "*?":
            found, at = found + ("[^/]*" if pattern[at] == "*" else "[^/]"), at + 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            found, at = found + "[" + ("^" + inside[1:] if inside[0] in "!^" else inside) + "]", end + 1
        else:
            found, at = found + re.escape(pattern[at]), at + 1
    return found
