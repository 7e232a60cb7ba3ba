"""Every family that is known, by its name in GGUF."""

from __future__ import annotations

from squish.worker.gguf.families import dense, gemma
from squish.worker.gguf.family import Family
from squish.worker.gguf.file import GgufHeader

# By the name of the architecture in GGUF; where one name stands for several of mlx-lm, the first that fits.
FAMILIES: dict[str, Family] = {**dense.FAMILIES, **gemma.FAMILIES}


def family_of(header: GgufHeader, architecture: str | None) -> Family | None:
    return FAMILIES.get(architecture or "")
