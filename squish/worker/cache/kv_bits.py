"""How many bits a number in the KV cache has, and what is said where it cannot have those that were asked for.

Only layers that the CPU engine puts together (cpu/fusion.py) keep 32, 16 or 8 bits as is wanted. The other caches are
mlx-lm's, whose batches hold numbers as the model computes them: its quantized cache cannot be put into a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from squish.worker import device
from squish.worker.cpu import fusion


@dataclass(frozen=True, slots=True)
class KvBits:
    """bits: of a number. choice: whether others could be had. warnings: what is said of the bits asked for."""

    bits: int
    choice: bool = False
    warnings: tuple[str, ...] = ()


def found(model: Any, asked: int | None, name: str) -> KvBits:
    """Those of a loaded model. asked: the user's wish, None for none. name: of the model, for people."""
    if own := fusion.kv_bits(model):
        return KvBits(own, choice=True)
    bits = 8 * (mx.float32 if device.on_cpu() else mx.float16).size
    if asked in (None, bits):
        return KvBits(bits)
    reason = "the CPU engine has no cache of its own for this architecture" if device.on_cpu() else "it runs on a GPU"
    return KvBits(bits, warnings=(f"{name} keeps {bits} bits a number in its KV cache, not {asked}: {reason}.",))


def warnings_for_vectors(asked: int | None, name: str) -> tuple[str, ...]:
    """Of an embedding or a reranking model, which has no KV cache."""
    return () if asked is None else (f"{name} has no KV cache; kv_bits is ignored.",)
