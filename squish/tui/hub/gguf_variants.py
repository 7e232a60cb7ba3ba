"""The files of a GGUF repository that can be pulled, each with its size, its bits and whether it fits. Pure values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from squish.hub.client import Snapshot
from squish.hub.search import Found
from squish.memory import fit
from squish.pull.repository import is_safe_name, shortest_tag, variants
from squish.tui.hub import filters

_RANKS: dict[fit.Fits | None, int] = {"yes": 0, "tight": 1, None: 2, "no": 3}


class Variant(msgspec.Struct, frozen=True):
    """name: what to pull; tag: `Q4_K_M`; size in bytes; bits per weight and fits, None where they are not known."""

    name: str
    tag: str
    size: int
    bits: float | None
    fits: fit.Fits | None


def of(find: Found, snapshot: Snapshot, context: int, machine: fit.Machine) -> list[Variant]:
    """Each model in .gguf files that a tag names, the smallest first; none beside safetensors, which are taken then."""
    found = list[Variant]()
    if any(file.path.endswith(".safetensors") for file in snapshot.files):
        return found
    among = variants(snapshot)
    for each in among:
        if not each.whole or not is_safe_name(each.files[0].path):
            continue
        tag = shortest_tag(each, among)
        bits = 8 * each.size / find.parameters if find.parameters else None
        fits = filters.verdict(replace(find, size=each.size), context, machine)
        found.append(Variant(f"{find.repo}:{tag}", tag, each.size, bits, fits))
    return sorted(found, key=lambda each: (each.size, each.tag))


def may_differ(find: Found) -> bool:
    """Whether a repository may have several files to choose from, as far as is known of it before it is asked."""
    return find.name == find.repo and (find.kind == "gguf" or not find.parameters)


def best(variants: Sequence[Variant]) -> Variant:
    """The largest that fits; where none does, the one that comes closest to it."""
    return min(variants, key=lambda each: (_RANKS[each.fits], each.size if each.fits == "no" else -each.size))
