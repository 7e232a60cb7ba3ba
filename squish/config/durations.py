"""Times as people write them: `300`, `90s`, `10m`, `1h30m`, `-1`. Pure."""

from __future__ import annotations

import re

LONGEST = 1e9  # seconds, some thirty years: more than that means forever

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_PART = re.compile(rf"({_NUMBER})(ms|s|m|h)")
_PLAIN = re.compile(rf"[+-]?(?:{_NUMBER})(?:e[+-]?[0-9]+)?")
_WHOLE = re.compile(rf"([+-]?)((?:{_PART.pattern})+)")


def seconds(text: str) -> float:
    """The seconds that a text stands for; a number without a unit is seconds. Raises ValueError for anything else."""
    text = text.strip().lower()
    if found := _WHOLE.fullmatch(text):
        total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(found[2]))
        return checked(-total if found[1] == "-" else total)
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a time")
    return checked(float(text))


def checked(value: float) -> float:
    """The value, where it is a time. Raises ValueError for what is not a number and for what is out of proportion."""
    if not abs(value) < LONGEST:
        raise ValueError(f"{value} is not a time")
    return value
