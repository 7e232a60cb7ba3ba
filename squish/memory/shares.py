"""Will it fit over several machines: what each rank of a group holds, and which of the machines are enough.

Pure arithmetic over fit.py. Every rank holds an equal part of the layers' weights and of the KV cache, and all of the
embeddings, which are not split; so the machine with the least memory decides. All sizes are in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from squish.figures import size
from squish.format.config import text_of
from squish.memory import fit
from squish.memory.fit import Fits, Machine, Shape


@dataclass(frozen=True, slots=True)
class Spread:
    """A model that is to be split. stored: bytes of its weights on disk; whole: the part of them on every rank."""

    shape: Shape
    stored: int
    whole: int

    @classmethod
    def of(cls, config: Mapping[str, Any], parameters: int, stored: int) -> Spread:
        """What config.json says of it; embeddings that are tied to the head are there once."""
        shape = fit.shape_of(config, parameters)
        tied = text_of(config).get("tie_word_embeddings", config.get("tie_word_embeddings", False))
        rows = shape.vocabulary * shape.hidden * (1 if tied is True else 2)
        return cls(shape, stored, min(stored, stored * rows // max(parameters, 1)))

    def rank(self, ranks: int, context: int, machine: Machine) -> fit.Estimate:
        """What one of so many ranks needs on a machine, at a context of one conversation in tokens."""
        shape, stored = self.shape, self.whole + -(-(self.stored - self.whole) // ranks)
        part = replace(
            shape,
            parameters=int(shape.parameters * stored / max(self.stored, 1)),
            kv_numbers=-(-shape.kv_numbers // ranks),
            window_numbers=-(-shape.window_numbers // ranks),
            intermediate=-(-shape.intermediate // ranks),
        )
        return fit.estimate(part, stored, context, machine)


@dataclass(frozen=True, slots=True)
class Share:
    """What one host is to hold of a model, and what it has for models."""

    host: str
    needed: int
    machine: Machine

    @property
    def fits(self) -> Fits:
        if self.needed > self.machine.total:
            return "no"
        return "yes" if self.needed <= self.machine.free else "tight"

    def __str__(self) -> str:
        has = f"{size(self.machine.total)} of {self.machine.kind} for models, {size(self.machine.free)} free"
        return f"{self.host} holds {size(self.needed)} of it and has {has}"


def limited(machine: Machine, most: int | None) -> Machine:
    """The machine with no more memory for models than `most`."""
    if most is None:
        return machine
    return replace(machine, total=min(machine.total, most), free=min(machine.free, most))


def shares(model: Spread, context: int, machines: Sequence[tuple[str, Machine]]) -> tuple[Share, ...]:
    """What each of these hosts, all taking part, is to hold."""
    ranks = len(machines)
    return tuple(Share(name, model.rank(ranks, context, machine).needed, machine) for name, machine in machines)


def enough(
    model: Spread,
    context: int,
    machines: Sequence[tuple[str, Machine]],
    splits: Callable[[int], bool] = lambda ranks: True,
) -> tuple[str, ...] | None:
    """The fewest hosts that the model fits on, the first always among them; None where all together are too small.

    splits: whether a model can be split into so many parts. Of several sets of one size, the one with most memory.
    """
    first, others = machines[0], sorted(machines[1:], key=lambda each: -each[1].total)
    for count in range(1, len(machines) + 1):
        chosen = [first, *others[: count - 1]]
        if splits(count) and all(each.fits != "no" for each in shares(model, context, chosen)):
            names = {name for name, _ in chosen}
            return tuple(name for name, _ in machines if name in names)
    return None
