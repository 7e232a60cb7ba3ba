"""The filters of the hub's list: which of the models found are shown, in which order, and what each needs at a context.

Pure values and functions. Knows no widget, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from squish.hub import search
from squish.hub.search import Found
from squish.memory import fit
from squish.memory.fit import USUAL_CONTEXT

CONTEXTS = (2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144)

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
ORDERS: tuple[tuple[str, search.Sort | None], ...] = (
    ("best", None),
    ("small first", "size"),
    ("downloads", "downloads"),
    ("likes", "likes"),
    ("updated", "updated"),
    ("name", "name"),
)


@dataclass(frozen=True, slots=True)
class Filters:
    """What is shown: indices into the tables above, and a context in tokens."""

    fit: int = 0
    parameters: int = 0
    bits: int = 0
    order: int = 0
    context: int = USUAL_CONTEXT

    def next(self, what: str) -> Filters:
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

    def moved_context(self, steps: int) -> Filters:
        at = min(max(CONTEXTS.index(self.context) + steps, 0), len(CONTEXTS) - 1)
        return replace(self, context=CONTEXTS[at])

    @property
    def narrow(self) -> bool:
        """Whether anything may be hidden."""
        return bool(self.fit or self.parameters or self.bits)


FIRST_RUN = Filters(fit=1, order=1)
"""What somebody without a model sees first: what fits, small first."""


@dataclass(frozen=True, slots=True)
class Hiding:
    """A filter that hides models: what it is set to, as `size ≤2B`, and how many would be shown without it."""

    filter: str
    value: str
    hides: int


def hiding(finds: Sequence[Found], choice: Filters, machine: fit.Machine) -> list[Hiding]:
    """The filters that are set, where all models are hidden: those of them that hide some alone, or else all."""
    values = {
        "fit": FITS[choice.fit][0],
        "parameters": f"size {PARAMETERS[choice.parameters][0]}",
        "bits": f"bits {BITS[choice.bits][0]}",
    }
    without = {name: replace(choice, **{name: 0}) for name in values}
    found = [
        Hiding(name, value, len(chosen(finds, without[name], machine)))
        for name, value in values.items()
        if without[name] != choice
    ]
    return [each for each in found if each.hides] or found


def chosen(finds: Iterable[Found], choice: Filters, machine: fit.Machine) -> list[Found]:
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
    return search.ordered(shown, ORDERS[choice.order][1])


def estimate(find: Found, context: int, machine: fit.Machine) -> fit.Estimate | None:
    """What a model needs at a context, or at its own where that is shorter; None where nobody knows its size."""
    if not find.parameters:
        return None
    shape, tokens = find.shape or fit.guessed(find.parameters), min(context, find.context_length or context)
    return fit.estimate(shape, find.size, tokens, replace(machine, kv_bits=find.kv_bits))


def longest(find: Found, machine: fit.Machine) -> int:
    """The longest context, in tokens, at which a model fits; 0 where it does at none."""
    shape, most = find.shape or fit.guessed(find.parameters), find.context_length or CONTEXTS[-1]
    return fit.largest_context(shape, find.size, replace(machine, kv_bits=find.kv_bits), most)


def verdict(find: Found, context: int, machine: fit.Machine) -> fit.Fits | None:
    found = estimate(find, context, machine)
    return fit.verdict(found, machine) if found else None
