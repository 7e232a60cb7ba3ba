"""Rotary embedding in config.json: either spelling in, the spelling out that an architecture's code reads.

Before version 5 transformers wrote `rope_theta`, `rope_scaling` and `partial_rotary_factor`; since then it writes one
`rope_parameters` that holds all three, for some architectures once for each kind of layer. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from squish.format.arguments import Arguments
from squish.format.ignored import Ignored, close, first_value, head_size, is_number

Entry = dict[str, Any]

_FULL, _SLIDING = "full_attention", "sliding_attention"
_THETAS = ("rope_theta", "rotary_emb_base", "rope_freq_constant", "rope_embedding_base")
_LOCAL_THETAS = ("rope_local_base_freq", "swa_rope_theta", "rope_local_theta")
_FACTORS = ("partial_rotary_factor", "rotary_pct")
# These take `rope_parameters` for each kind of layer.
_BY_LAYER = frozenset({"gemma4_text", "laguna", "mellum", "spark2_5"})
_WHOLE = frozenset({"gemma4_text", "mellum"})  # of them, these rotate the whole head, but where it is proportional
# These scale the layers that see everything, and no others.
_SCALE_FULL = frozenset({"gemma3_text", "olmo3", "gear"})
# What the code has in place of a key: the base, and the part of a head that is rotated.
_FIXED_THETA, _FIXED_FACTOR = 10_000.0, {"recurrent_gemma": 0.5}
_BETA = "llama_4_scaling_beta"
# mlx-lm's `initialize_rope` knows these kinds of scaling.
_SHARED = frozenset(
    {"linear", "dynamic", "llama3", "yarn", "deepseek_yarn", "telechat3-yarn", "longrope", "proportional"}
)
# Code that knows fewer, or asks for no kind and takes every scaling for its own.
_OWN = {
    "internlm3": frozenset({"linear", "dynamic"}),
    "mellum": _SHARED - {"linear", "proportional"},
    "deepseek_v2": frozenset({"yarn", "deepseek_yarn"}),
    "deepseek_v41": frozenset({"yarn", "deepseek_yarn"}),
    "hunyuan": frozenset({"dynamic"}),
    "hunyuan_v1_dense": frozenset({"dynamic"}),
    "minicpm3": frozenset({"longrope"}),
    "phimoe": frozenset({"longrope"}),
}
_OTHER_NAMES = {"su": "longrope", "mrope": "default"}  # for text alone, the sections of mrope are the plain one
_PRETRAINED = ("llama3", "yarn", "deepseek_yarn", "telechat3-yarn", "longrope")  # they know an original context
# What every kind of scaling reads, does not need for text, or reads in mlx-lm with a rounding of its own (truncate).
_KNOWN = frozenset({
    "rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings",
    "max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "short_factor", "long_factor",
    "low_freq_factor", "high_freq_factor", "attention_factor", "truncate", "mrope_section", "mrope_interleaved",
    "finetuned",
})  # fmt: skip


def settle(text: dict[str, Any], arguments: Arguments) -> None:
    """Write the rotary embedding that `text` describes under the keys that its code reads, in place.

    Raises Ignored where the code would compute another one.
    """
    entries = _entries(text)
    if not entries:
        return
    for label, entry in entries.items():
        _complete(entry, text)
        _check(entry, arguments, f"rope_parameters.{label}" if label else "rope_parameters", text)
    if arguments.module in _BY_LAYER:
        text["rope_parameters"] = entries if "" not in entries else {_FULL: entries[""], _SLIDING: dict(entries[""])}
        return
    full = entries.get("") or entries.get(_FULL) or next(iter(entries.values()))
    sliding = entries.get(_SLIDING, full)
    if "" in entries and arguments.module in _SCALE_FULL:
        sliding = {**full, "rope_type": "default", "rope_theta": first_value(text, *_LOCAL_THETAS)}
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and kinds and _SLIDING not in kinds:
        sliding = full
    if arguments.reads("rope_parameters") and _BETA in arguments.words:
        full.setdefault(_BETA, 0)  # the code cannot do without; it scales nothing
        full.setdefault("original_max_position_embeddings", text.get("max_position_embeddings"))
    _settle_theta(text, arguments, full, sliding)
    _settle_factor(text, arguments, full, sliding)
    _settle_scaling(text, arguments, full, sliding)
    if arguments.reads("rope_parameters") or "rope_parameters" in text:
        text["rope_parameters"] = full


def _entries(text: Mapping[str, Any]) -> dict[str, Entry]:
    """What is said for each kind of layer, under "" what is said for all; empty where nothing is said."""
    found, scaling = text.get("rope_parameters"), text.get("rope_scaling")
    theta, factor = first_value(text, *_THETAS), first_value(text, *_FACTORS)
    if isinstance(found, Mapping) and found:
        parts = {str(key): value for key, value in found.items() if isinstance(value, Mapping)}
        entries = {key: dict(value) for key, value in parts.items()} or {"": dict(found)}
    elif isinstance(scaling, Mapping) or theta is not None or factor is not None:
        entries = {"": dict(scaling) if isinstance(scaling, Mapping) else {}}
    else:
        return {}
    for entry in entries.values():
        if is_number(theta) or isinstance(theta, str):
            entry.setdefault("rope_theta", theta)
        if is_number(factor):
            entry.setdefault("partial_rotary_factor", factor)
    return entries


def _complete(entry: Entry, text: Mapping[str, Any]) -> None:
    """Say in an entry what transformers takes from beside it."""
    kind = str(entry.get("rope_type") or entry.pop("type", None) or "default")
    entry.pop("type", None)
    entry["rope_type"] = kind = _OTHER_NAMES.get(kind, kind)
    if kind in _PRETRAINED and not entry.get("original_max_position_embeddings"):
        length = first_value(text, "original_max_position_embeddings", "max_position_embeddings")
        if length is not None:
            entry["original_max_position_embeddings"] = length


def _check(entry: Entry, arguments: Arguments, where: str, text: Mapping[str, Any]) -> None:
    """Refuse what the code would compute otherwise."""
    kind = entry["rope_type"]
    if kind != "default" and kind not in _kinds(arguments):
        raise Ignored(f"{where}.rope_type", kind)
    for key, value in entry.items():
        if key not in _KNOWN and key not in arguments.words and _has_number(value):
            raise Ignored(f"{where}.{key}", value)
    factor = entry.get("partial_rotary_factor")
    if arguments.module in _WHOLE and kind != "proportional" and is_number(factor) and not close(factor, 1):
        raise Ignored(f"{where}.partial_rotary_factor", factor)
    given = entry.get("attention_factor")
    if is_number(given) and kind in ("yarn", "longrope") and not close(given, _attention_factor(entry, text)):
        raise Ignored(f"{where}.attention_factor", given)


def _kinds(arguments: Arguments) -> frozenset[str]:
    """The kinds of scaling that the code computes."""
    taken = "rope_scaling" in arguments.used or (arguments.shared_rope and "rope_parameters" in arguments.used)
    if not taken and not arguments.reads("rope_parameters"):
        return frozenset()
    if arguments.module in _OWN:
        return _OWN[arguments.module]
    if not taken:
        return frozenset()
    return _SHARED if arguments.shared_rope else _SHARED & arguments.words


def _attention_factor(entry: Entry, text: Mapping[str, Any]) -> float:
    """What mlx-lm multiplies with, where transformers would take `attention_factor`."""
    original = entry.get("original_max_position_embeddings")
    if entry["rope_type"] == "yarn":
        given = entry.get("factor")
        factor = float(given) if is_number(given) else 1.0
        return _mscale(factor, entry.get("mscale", 1)) / _mscale(factor, entry.get("mscale_all_dim", 0))
    length = text.get("max_position_embeddings")
    if not (is_number(original) and is_number(length)) or length <= original or original <= 1:
        return 1.0
    return math.sqrt(1 + math.log(length / original) / math.log(original))


def _mscale(factor: float, scale: object) -> float:
    return 1.0 if factor <= 1 or not is_number(scale) else 0.1 * scale * math.log(factor) + 1


def _settle_theta(text: dict[str, Any], arguments: Arguments, full: Entry, sliding: Entry) -> None:
    theta = full.get("rope_theta")
    if isinstance(theta, str):
        raise Ignored("rope_theta", theta)
    if not is_number(theta):  # nothing is said, or it is said for each layer
        return
    inner = text.get("attn_config")
    if (key := arguments.first(*_THETAS)) is not None:
        text[key] = theta
    elif isinstance(inner, Mapping) and arguments.reads("attn_config") and "rope_theta" in arguments.words:
        text["attn_config"] = {**inner, "rope_theta": theta}
    elif not arguments.reads("rope_parameters") and _rotates(arguments) and not close(theta, _FIXED_THETA):
        raise Ignored("rope_theta", theta)
    local = sliding.get("rope_theta")
    if (key := arguments.first(*_LOCAL_THETAS)) is not None:
        if sliding is not full and is_number(local):
            text[key] = local
    elif is_number(local) and not close(local, theta):
        raise Ignored(f"rope_parameters.{_SLIDING}.rope_theta", local)


def _rotates(arguments: Arguments) -> bool:
    return bool(arguments.words & {"RoPE", "initialize_rope", "rope"})


def _settle_factor(text: dict[str, Any], arguments: Arguments, full: Entry, sliding: Entry) -> None:
    """The part of a head that is rotated. Latent attention says it as a size of its own, qk_rope_head_dim."""
    factor = full.get("partial_rotary_factor")
    if arguments.reads("rotary_dim") and text.get("rotary_dim") is None and (size := head_size(text)):
        text["rotary_dim"] = int(size * (factor if is_number(factor) else 1))
    if not is_number(factor) or full["rope_type"] == "proportional":
        return
    if not close(sliding.get("partial_rotary_factor", factor), factor):
        raise Ignored(f"rope_parameters.{_SLIDING}.partial_rotary_factor", sliding["partial_rotary_factor"])
    if (key := arguments.first(*_FACTORS)) is not None:
        text[key] = factor
    elif not (
        arguments.first("qk_rope_head_dim", "rotary_dim")
        or (arguments.reads("rope_parameters") and "partial_rotary_factor" in arguments.words)
        or close(factor, _FIXED_FACTOR.get(arguments.module, 1.0))
        or not _rotates(arguments)
    ):
        raise Ignored("partial_rotary_factor", factor)


def _settle_scaling(text: dict[str, Any], arguments: Arguments, full: Entry, sliding: Entry) -> None:
    kind, local = full["rope_type"], sliding["rope_type"]
    if sliding is not full:
        if local != "default" and (arguments.module in _SCALE_FULL or local != kind):
            raise Ignored(f"rope_parameters.{_SLIDING}.rope_type", local)
        if local == "default" and kind != "default" and arguments.module not in _SCALE_FULL:
            raise Ignored(f"rope_parameters.{_FULL}.rope_type", kind)
    original = full.get("original_max_position_embeddings")
    if original is not None and arguments.reads("original_max_position_embeddings"):
        text["original_max_position_embeddings"] = original
    if "rope_scaling" not in arguments.fields:
        return
    text["rope_scaling"] = None if kind == "default" else {**full, "type": kind}
    if kind == "default" and arguments.module in ("deepseek_v2", "minicpm3"):
        # They cannot do without. Scaled by one, from as many tokens as there are to as many, nothing changes.
        kind = next(iter(sorted(_OWN[arguments.module], key=len)))
        length = text.get("max_position_embeddings")
        text["rope_scaling"] = {
            "type": kind,
            "rope_type": kind,
            "factor": 1.0,
            "original_max_position_embeddings": length,
        }


def _has_number(value: object) -> bool:
    return is_number(value) or (isinstance(value, list) and any(map(is_number, value)))
