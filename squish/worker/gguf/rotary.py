"""Scaling of the rotary embedding in a GGUF file, as config.json says it. Pure, but for the few numbers it reads."""

from __future__ import annotations

import math
import struct
from typing import Any

from squish.worker.gguf.file import GgufHeader, read_tensor, require_present
from squish.worker.gguf.keys import ModelKeys

DIVISORS = "rope_freqs.weight"
_NEVER = 1e29  # a divisor that stands for no rotation
SHORT, LONG = "rope_factors_short.weight", "rope_factors_long.weight"


def scaling(keys: ModelKeys, base: float, rotated: int) -> dict[str, Any] | None:
    """`rope_scaling` of config.json; None where nothing is scaled. rotated: numbers of a head that are rotated.

    Raises UnsupportedModel for a kind that is not known, CorruptModel.
    """
    header = keys.header
    factor, kind = keys.number("rope.scaling.factor"), keys.text("rope.scaling.type")
    original = keys.count("rope.scaling.original_context_length")
    if LONG in header.tensors:
        return _longrope(keys, original, rotated)
    if kind == "yarn":
        return _yarn(keys, factor, original)
    if kind == "linear" or (kind in (None, "none") and factor not in (None, 0, 1)):
        if factor is None or not factor > 0:
            raise header.corrupt("its rotary scaling has no factor")
        return None if factor == 1 else {"rope_type": "linear", "factor": factor}
    if kind not in (None, "none", "longrope"):
        raise header.unsupported(f"rotary scaling of the type {kind!r}")
    return _llama3(header, base, rotated)


def _yarn(keys: ModelKeys, factor: float | None, original: int | None) -> dict[str, Any]:
    if not factor or not original:
        raise keys.header.corrupt("its yarn scaling lacks its factor or the original context length")
    found: dict[str, Any] = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    for name, key in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")):
        if (value := keys.number(f"rope.scaling.{key}")) is not None:
            found[name] = value
    attention = keys.number("rope.scaling.yarn_attn_factor")
    if attention is not None:
        found["attention_factor"] = attention
    return found


def _longrope(keys: ModelKeys, original: int | None, rotated: int) -> dict[str, Any]:
    header, original = keys.header, original or keys.size("context_length")
    found: dict[str, Any] = {"rope_type": "longrope", "original_max_position_embeddings": original}
    for name, tensor in (("short_factor", SHORT), ("long_factor", LONG)):
        found[name] = _stored(header, tensor, rotated // 2)
    if (attention := keys.number("rope.scaling.attn_factor")) is not None:
        found["attention_factor"] = attention
    return found


def _llama3(header: GgufHeader, base: float, rotated: int) -> dict[str, Any] | None:
    """Llama 3's scaling, recognized from the divisors that the file stores; None without any.

    Divisors that are not exactly Llama 3's (low 1, high 4, original context 8192) are refused.
    """
    if DIVISORS not in header.tensors:
        return None
    info = header.tensors[DIVISORS]
    whole = _stored(header, DIVISORS, max(rotated // 2, math.prod(info.shape)))
    stored = whole[: rotated // 2]
    if any(divisor != 1 for divisor in whole[len(stored) :]):  # of numbers that are rotated in other layers only
        raise header.corrupt(f"tensor {DIVISORS} has {len(whole)} divisors for {len(stored)} frequencies")
    factor = max(stored)
    if not 1 <= factor < math.inf:
        raise header.corrupt(f"tensor {DIVISORS} is not a list of divisors")
    if factor >= _NEVER:  # those numbers of a head are not rotated at all
        part = stored.count(1.0)
        if stored != [1.0] * part + [factor] * (len(stored) - part):
            raise header.unsupported("rotary frequencies that are of no known kind")
        return {"rope_type": "proportional", "partial_rotary_factor": part / len(stored)}
    if all(divisor in (1.0, factor) for divisor in stored) and _is_llama3(stored, base, rotated, factor, high=1.0):
        return _llama3_settings(factor, 1.0)
    if not _is_llama3(stored, base, rotated, factor, high=4.0):
        raise header.unsupported("rotary frequencies that are not those of Llama 3")
    return _llama3_settings(factor, 4.0)


def _is_llama3(stored: list[float], base: float, rotated: int, factor: float, *, high: float) -> bool:
    """Whether the divisors are those for the lowest frequency 1 and this highest one."""
    for at, divisor in enumerate(stored):
        turns = 8192 / (2 * math.pi * base ** (2 * at / rotated))
        smooth = min(1.0, max(0.0, (turns - 1) / (high - 1))) if high > 1 else float(turns > 1)
        if not math.isclose(divisor * ((1 - smooth) / factor + smooth), 1, rel_tol=1e-4):
            return False
    return True


def _llama3_settings(factor: float, high: float) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "factor": float(f"{factor:.7g}"),
        "low_freq_factor": 1.0,
        "high_freq_factor": high,
        "original_max_position_embeddings": 8192,
    }


def _stored(header: GgufHeader, name: str, count: int) -> list[float]:
    info = header.tensors.get(name)
    if info is None or info.shape != (count,) or info.format.name != "F32":
        raise header.corrupt(f"tensor {name} is not {count} float32 numbers")
    require_present(header, info)
    return [float(f"{each:.7g}") for each in struct.unpack(f"<{count}f", read_tensor(info))]
