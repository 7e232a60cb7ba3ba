"""Will it fit over several machines: what each rank of a group holds, and which of the machines are enough.

Pure arithmetic over fit.py. Where a model is divided by heads here (`BY_HEADS`), rank 0 has the embedding and the
output layer, and as much less of the layers as makes all ranks equal. Of other models every rank holds an equal part
of the layers and all of the embedding, and rank 0 the output layer besides. The KV cache goes with the heads: where
they cannot be divided evenly, the last ranks have one more. All sizes are in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from squish.figures import size
from squish.format.architectures import module_of
from squish.format.config import text_of
from squish.ipc.group import BY_HEADS, heads_of_ranks
from squish.memory import fit
from squish.memory.fit import Fits, Machine, Shape


@dataclass(frozen=True, slots=True)
class Spread:
    """A model that is to be split. Sizes are in bytes on disk.

    stored: all weights. whole: the embedding. output: the output layer, 0 if it is the embedding. heads: key and value
    heads of a layer, 0 if unknown. attention: its fraction of the layers if the model is divided by heads, else None.
    """

    shape: Shape
    stored: int
    whole: int
    output: int = 0
    heads: int = 0
    attention: float | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], parameters: int, stored: int) -> Spread:
        """What config.json says of it; embeddings that are tied to the head are there once."""
        shape = fit.shape_of(config, parameters)
        tied = text_of(config).get("tie_word_embeddings", config.get("tie_word_embeddings", False))
        whole = min(stored, stored * shape.vocabulary * shape.hidden // max(parameters, 1))
        heads = text_of(config).get("num_key_value_heads")
        known = heads if isinstance(heads, int) and not isinstance(heads, bool) and heads > 0 else 0
        output = 0 if tied is True else min(whole, stored - whole)
        return cls(shape, stored, whole, output, known, _attention(config, shape, known))

    def rank(self, ranks: int, context: int, machine: Machine, number: int = 0) -> fit.Estimate:
        """What rank `number` of so many needs on a machine, at a context of one conversation in tokens."""
        shape, stored = self.shape, self._stored(ranks, number)
        part = replace(
            shape,
            parameters=int(shape.parameters * stored / max(self.stored, 1)),
            kv_numbers=self._of_heads(shape.kv_numbers, ranks, number),
            window_numbers=self._of_heads(shape.window_numbers, ranks, number),
            intermediate=-(-shape.intermediate // ranks),
        )
        return fit.estimate(part, stored, context, machine)

    def _stored(self, ranks: int, number: int) -> int:
        """Bytes of the weights of a rank."""
        layers, ends = self.stored - self.whole - self.output, self.whole + self.output
        if self.attention is None or self.heads < ranks or ranks == 1:
            return self.whole + -(-layers // ranks) + (self.output if number == 0 else 0)
        least = layers * self.attention * heads_of_ranks(self.heads, ranks)[0] / self.heads
        first = int(max(self.stored / ranks - ends, least))
        return ends + first if number == 0 else -(-(layers - first) // (ranks - 1))

    def _of_heads(self, numbers: int, ranks: int, number: int) -> int:
        """What of the cache goes with the heads of a rank."""
        if self.heads < ranks:
            return -(-numbers // ranks)
        return -(-numbers * heads_of_ranks(self.heads, ranks)[number] // self.heads)


def _attention(config: Mapping[str, Any], shape: Shape, kv_heads: int) -> float | None:
    """The part of a layer's weights that goes with the heads; None of a model that is not divided by them here."""
    text = text_of(config)
    heads = text.get("num_attention_heads")
    kind = module_of({"model_type": config.get("model_type")} | dict(text))
    if kind not in BY_HEADS or not kv_heads or not isinstance(heads, int):
        return None
    head = text.get("head_dim")
    width = head if isinstance(head, int) and head > 0 else shape.hidden // max(heads, 1)
    attention, mlp = 2 * (heads + kv_heads) * width, 3 * shape.intermediate
    return attention / max(attention + mlp, 1)


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
    """What each of these hosts, all taking part, is to hold; they are the ranks in their order."""
    ranks = len(machines)
    return tuple(
        Share(name, model.rank(ranks, context, machine, number).needed, machine)
        for number, (name, machine) in enumerate(machines)
    )


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
        names = {name for name, _ in [first, *others[: count - 1]]}
        chosen = [each for each in machines if each[0] in names]
        if splits(count) and all(each.fits != "no" for each in shares(model, context, chosen)):
            return tuple(name for name, _ in chosen)
    return None
