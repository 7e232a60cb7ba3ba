"""Every family that is known, by its name in GGUF."""

from __future__ import annotations

from collections.abc import Callable

from squish.errors import UnsupportedModel
from squish.format import architectures
from squish.worker.gguf.families import dense, early, gemma, hybrid, moe, recurrent, sparse
from squish.worker.gguf.families.refused import REFUSED, RUN_FROM_SAFETENSORS
from squish.worker.gguf.family import SIGMOID, Family
from squish.worker.gguf.file import OTHER_FORMAT, GgufHeader, nearest
from squish.worker.gguf.keys import ModelKeys

_TABLES = (dense, early, gemma, moe, sparse, hybrid, recurrent)
FAMILIES: dict[str, Family] = {name: family for table in _TABLES for name, family in table.FAMILIES.items()}
# Where one name of GGUF stands for several architectures of mlx-lm: the first that fits, else the one above.
VARIANTS: dict[str, tuple[tuple[Callable[[ModelKeys], bool], Family], ...]] = {
    "llama": ((lambda keys: bool(keys.count("expert_count")), moe.MIXTRAL),),
    "olmo2": ((lambda keys: bool(keys.count("attention.sliding_window")), dense.OLMO_3),),
    "granitehybrid": ((lambda keys: bool(keys.count("expert_count")), hybrid.GRANITE_EXPERTS),),
    "deepseek2": ((lambda keys: keys.count("expert_gating_func") == SIGMOID, moe.DEEPSEEK_3),),
}


def unknown_family(header: GgufHeader) -> UnsupportedModel:
    """The error for an architecture that is not imported: why, where it is known, or else what is named alike."""
    architecture = header.text("general.architecture")
    if not architecture:
        return header.unsupported("it does not say which model it holds: general.architecture is missing", None)
    what = f"the architecture {architecture!r}"
    if architecture in REFUSED:
        hint = OTHER_FORMAT if architecture in RUN_FROM_SAFETENSORS else None
        return header.unsupported(f"{what}: {REFUSED[architecture]}", hint)
    runs = any(architectures.is_supported(name) for name in (architecture, architecture.replace("-", "_")))
    hint = OTHER_FORMAT if runs else None
    return header.unsupported(f"{what} is not known; {nearest(architecture, FAMILIES)}", hint)


def family_of(keys: ModelKeys) -> Family | None:
    for fits, family in VARIANTS.get(keys.architecture, ()):
        if fits(keys):
            return family
    return FAMILIES.get(keys.architecture)
