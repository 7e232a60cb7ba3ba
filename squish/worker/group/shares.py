"""Owns how much of a layer each rank gets: whole heads, and pieces of the MLP that even out what heads leave uneven.

Pure arithmetic: it knows neither MLX nor processes.
"""

from __future__ import annotations

from dataclasses import dataclass

from squish.ipc.group import heads_of_ranks


@dataclass(frozen=True, slots=True)
class LayerShare:
    """heads: key-value heads, pieces: of the MLP's columns; each the first, and the one after the last."""

    heads: tuple[int, int]
    pieces: tuple[int, int]


def spans(heads: int, pieces: int, size: int, attention: float, ends: float) -> list[LayerShare]:
    """The share of each rank, at least one head and one piece each.

    attention: its weights, in those of the layer's MLP. ends: what rank 0 holds besides for each layer, in the same.
    """
    counts = heads_of_ranks(heads, size)
    whole = 1.0 + attention + ends
    taken = [attention * count / heads + (0.0 if rank else ends) for rank, count in enumerate(counts)]
    wanted = [max(0.0, whole / size - each) for each in taken]
    ends_heads = [sum(counts[: rank + 1]) for rank in range(size)]
    cuts = [0]
    for rank in range(size):
        end = round(pieces * sum(wanted[: rank + 1]) / sum(wanted)) if rank < size - 1 else pieces
        cuts.append(min(max(end, cuts[-1] + 1), pieces - (size - 1 - rank)))
    return [
        LayerShare((ends_heads[rank] - counts[rank], ends_heads[rank]), (cuts[rank], cuts[rank + 1]))
        for rank in range(size)
    ]
