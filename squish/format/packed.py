"""How many numbers a packed matrix stands for, as config.json and the shapes of its tensors say. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

K_QUANTS = "squish_k_quants"  # of config.json: bits of the layers that GGUF's K-quants were kept for
# What a packed layer has beside its weight.
SCALES = ("scales", "biases", "minima", "of_scales", "of_minima")


def numbers(layer: str, words: int, scales: int, config: Mapping[str, Any]) -> int:
    """words: 32-bit words of its codes; scales: how many it has, one for each group but for K-quants."""
    kept = config.get(K_QUANTS)
    if isinstance(kept, Mapping) and isinstance(bits := kept.get(layer), int) and bits > 0:
        return words * 32 // bits
    found = config.get("quantization") or config.get("quantization_config") or {}
    own = found.get(layer)
    group: int = (own if isinstance(own, Mapping) else found).get("group_size", 64)
    return scales * group
