"""Kinds of arguments of the programs in here: each turns a text into a value, or says in a line what it must be.

They are for argparse, as types.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from squish.models import recipes
from squish.text import clean, whole

Value = TypeVar("Value")


def count(text: str) -> int:
    """A whole number, at least 1."""
    value = whole(text)
    if not value or value < 1:
        raise refusal(text, "a whole number, at least 1")
    return value


def number(text: str) -> float:
    """More than nothing, and finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise refusal(text, "a number above 0")
    return value


def several(kind: Callable[[str], Value]) -> Callable[[str], list[Value]]:
    """Values with commas between them."""
    return lambda text: [kind(part.strip()) for part in text.split(",")]


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """One of these words."""
    known = [*names]

    def chosen(text: str) -> str:
        if text not in known:
            raise refusal(text, f"one of {', '.join(known)}")
        return text

    return chosen


def recipe(text: str) -> str:
    """The tag of a recipe that says how many bits, whatever they fit into."""
    chosen = recipes.from_tag(text)
    if chosen is None or chosen.recipe is None or chosen.recipe.fit:
        raise refusal(text, "a recipe, such as 4bit, 3bit-g32 and 4.5bpw, or a directory")
    return text


def refusal(text: str, wanted: str) -> argparse.ArgumentTypeError:
    """What argparse says after the name of the argument."""
    return argparse.ArgumentTypeError(f"{clean(text)!r} is not {wanted}")
