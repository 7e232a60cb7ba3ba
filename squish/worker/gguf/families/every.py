"""Every family that is known, by its name in GGUF."""

from __future__ import annotations

from squish.worker.gguf.families import dense, gemma, hybrid, moe
from squish.worker.gguf.family import Family
from squish.worker.gguf.keys import ModelKeys

FAMILIES: dict[str, Family] = {**dense.FAMILIES, **gemma.FAMILIES, **moe.FAMILIES, **hybrid.FAMILIES}
# Where one name of GGUF stands for several architectures of mlx-lm: the first that fits, else the one above.
VARIANTS = moe.VARIANTS


def family_of(keys: ModelKeys) -> Family | None:
    for fits, family in VARIANTS.get(keys.architecture, ()):
        if fits(keys):
            return family
    return FAMILIES.get(keys.architecture)
