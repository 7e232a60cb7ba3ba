"""The hub's list: which of the models found are shown, in which order, and what each needs at a context.

Pure values and functions. Knows no widget, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from squish.errors import InvalidName
from squish.hub.search import Found
from squish.memory import fit
from squish.names import RepoName, parse

CONTEXTS = (2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144)

Order = Literal["best", "small first", "downloads", "likes", "updated", "name"]

FITS: tuple[tuple[str, tuple[fit.Fits | None, ...]], ...] = (
    ("all", ("yes", "tight", "no", None)),
    ("fits", ("yes", "tight", None)),
    ("fits now", ("yes",)),
)
PARAMETERS: tuple[tuple[str, float, float], ...] = (
    ("any", 0, float("inf")),
    ("≤2B", 0, 2e9),
    ("2–9B", 2e9, 9e9),
    ("9–16B", 9e9, 16e9),
    ("16–40B", 16e9, 40e9),
    (">40B", 40e9, float("inf")),
)
BITS: tuple[tuple[str, float, float], ...] = (
    ("any", 0, float("inf")),
    ("≤4", 0, 5),
    ("5–6", 5, 7),
    ("8", 7, 10),
    ("16", 10, float("inf")),
)
ORDERS: tuple[Order, ...] = ("best", "small first", "downloads", "likes", "updated", "name")


@dataclass(frozen=True, slots=True)
class Choice:
    """What is shown: indices into the tables above, and a context in tokens."""

    fit: int = 0
    parameters: int = 0
    bits: int = 0
    order: int = 0
    context: int = 8192

    def next(self, what: str) -> Choice:
        """The choice with the next value of one filter, or of the order."""
        match what:
            case "fit":
                return replace(self, fit=(self.fit + 1) % len(FITS))
            case "parameters":
                return replace(self, parameters=(self.parameters + 1) % len(PARAMETERS))
            case "bits":
                return replace(self, bits=(self.bits + 1) % len(BITS))
            case _:
                return replace(self, order=(self.order + 1) % len(ORDERS))

    def moved_context(self, steps: int) -> Choice:
        at = min(max(CONTEXTS.index(self.context) + steps, 0), len(CONTEXTS) - 1)
        return replace(self, context=CONTEXTS[at])

    @property
    def narrow(self) -> bool:
        """Whether anything may be hidden."""
        return bool(self.fit or self.parameters or self.bits)


FIRST_RUN = Choice(fit=1, order=1)
"""What somebody without a model sees first: what fits, small first."""


def merged(known: Sequence[Found], hub: Iterable[Found]) -> list[Found]:
    """What is known here, with the Hub's figures where it has some; then what only the Hub has."""
    there = {each.name: each for each in hub}
    repos = {each.repo: each for each in there.values()}
    here = [there.pop(each.name) if each.name in there else _popular(each, repos) for each in known]
    taken = {each.repo for each in here}
    return here + [each for each in there.values() if each.repo not in taken]


def exact(query: str, found: Sequence[Found]) -> list[Found]:
    """The repository that a query names in full, when it is not among those found: it can be pulled all the same."""
    try:
        ref = parse(query)
    except InvalidName:
        return []
    if not isinstance(ref, RepoName) or any(each.name == str(ref) for each in found):
        return []
    return [Found(str(ref), ref.repo_id, ref.org, "safetensors", 0, None, 0, 0, None)]


def chosen(finds: Iterable[Found], choice: Choice, machine: fit.Machine) -> list[Found]:
    """What the filters let through, in the order asked for. What is not known passes, but for "fits now"."""
    allowed = FITS[choice.fit][1]
    _, least, most = PARAMETERS[choice.parameters]
    _, low, high = BITS[choice.bits]
    shown = [
        each
        for each in finds
        if (not each.parameters or least <= each.parameters <= most)
        and (not each.bits or low <= each.bits < high)
        and verdict(each, choice.context, machine) in allowed
    ]
    return _ordered(shown, ORDERS[choice.order])


def estimate(find: Found, context: int, machine: fit.Machine) -> fit.Estimate | None:
    """What a model needs, or None where nobody knows its size."""
    if not find.parameters:
        return None
    return fit.estimate(find.shape or fit.guessed(find.parameters), find.size, context, machine)


def verdict(find: Found, context: int, machine: fit.Machine) -> fit.Fits | None:
    found = estimate(find, context, machine)
    return fit.verdict(found, machine) if found else None


def _popular(find: Found, repos: dict[str, Found]) -> Found:
    listed = repos.get(find.repo)
    if listed is None:
        return find
    return replace(find, downloads=listed.downloads, likes=listed.likes, updated=listed.updated, gated=listed.gated)


def _ordered(finds: list[Found], order: Order) -> list[Found]:
    match order:
        case "best":
            return finds
        case "small first":
            return sorted(finds, key=lambda each: (not each.size, each.size, each.name))
        case "downloads":
            return sorted(finds, key=lambda each: -(each.downloads or 0))
        case "likes":
            return sorted(finds, key=lambda each: -(each.likes or 0))
        case "updated":
            return sorted(finds, key=lambda each: each.updated or "", reverse=True)
        case "name":
            return sorted(finds, key=lambda each: each.name.lower())
