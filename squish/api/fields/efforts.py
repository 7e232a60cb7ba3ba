"""The names of the degrees of thinking. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from squish.errors import InvalidInput
from squish.generation import Effort

EFFORTS: Mapping[str, bool | None] = {
    "none": False,
    "off": False,
    "disable": False,
    "disabled": False,
    "minimal": False,
    "low": True,
    "medium": True,
    "high": True,
    "xhigh": True,
    "max": True,
    "default": None,
    "auto": None,
    "": None,
}
"""None is what the model does by itself."""

DEGREES: Mapping[str, Effort] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
"""For models that know three degrees."""


def thinks(given: str | None, field: str, words: Mapping[str, bool | None] = EFFORTS) -> bool | None:
    """Whether a word asks to think; None leaves it to the model. Raises InvalidInput for an unknown one."""
    if given is None:
        return None
    if given not in words:
        raise InvalidInput(f"{field} must be one of {', '.join(filter(None, words))}.", param=field)
    return words[given]
