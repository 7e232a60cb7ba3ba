"""Where a text that still grows can be cut, so that what is before the cut need never be looked at again. Pure text."""

from __future__ import annotations

from dataclasses import dataclass

from squish.tui.widgets.markdown.document import parser

FENCE_LINES = 24
_KEPT = 4


@dataclass(frozen=True, slots=True)
class Cut:
    """done and rest: both complete Markdown; gap: whether an empty line is between them.

    continues: the rest goes on with the block of code that done ends with. fences: begun in done.
    """

    done: str
    rest: str
    gap: bool
    continues: bool = False
    fences: int = 0


def cut(text: str) -> Cut | None:
    """Cut before the block, or the item of a list, that may still grow; None where all of it may.

    A block of code is cut in its middle when it is long.
    """
    tokens = parser().parse(text)
    blocks = [token for token in tokens if token.level == 0 and token.map]
    if not blocks:
        return None
    last = blocks[-1]
    lines = text.splitlines(keepends=True)
    start = _start(last)
    fences = sum(token.type == "fence" and _start(token) < start for token in tokens)
    if start:
        return Cut("".join(lines[:start]), "".join(lines[start:]), True, fences=fences)
    if last.type in ("bullet_list_open", "ordered_list_open"):
        item = [token for token in tokens if token.type == "list_item_open" and token.level == 1][-1]
        at = _start(item)
        fences = sum(token.type == "fence" and _start(token) < at for token in tokens)
        return Cut("".join(lines[:at]), "".join(lines[at:]), False, fences=fences) if at else None
    if last.type == "fence" and len(lines) > FENCE_LINES + _KEPT:
        at, opening = len(lines) - _KEPT, lines[0]
        done = f"{''.join(lines[:at])}{last.markup}\n"
        return Cut(done, opening + "".join(lines[at:]), False, continues=True, fences=1)
    return None


def joined(first: str, second: str) -> str:
    """A block of code that was cut, whole again."""
    return first[: first.rstrip("\n").rindex("\n") + 1] + second.partition("\n")[2]


def _start(token: object) -> int:
    place = getattr(token, "map", None)
    return int(place[0]) if place else 0
