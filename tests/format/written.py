"""config.json as transformers itself writes it, and what it means by it."""

from __future__ import annotations

import json
import logging
import math
import warnings
from typing import Any

from squish.format import architectures

# Not language models: the tower that looks at pictures has this name in transformers.
_OTHERS = {"pixtral"}

# Sizes that an example without any would lack.
SIZES: dict[str, dict[str, Any]] = {
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "num_hidden_layers": 4},
    "granitemoehybrid": {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]},
    "lfm2_moe": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
}

Rope = dict[str, Any]


def shared() -> list[str]:
    """Every model_type that transformers writes and mlx-lm runs."""
    return sorted(architectures.supported() & set(_mapping()) - _OTHERS - architectures.ENCODERS)


def _mapping() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import CONFIG_MAPPING
    return CONFIG_MAPPING


def default(kind: str) -> Any:
    return write(kind)[1]


def write(kind: str, changes: Rope | None = None, *, sliding: Rope | None = None) -> tuple[dict[str, Any], Any]:
    """config.json of an architecture, and the object of the language model that wrote it.

    changes: of its rotary embedding, where it has one; sliding: of that of its windowed layers, by default the same.
    """
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _written(kind, changes, sliding)
    finally:
        logging.disable(logging.NOTSET)


def _written(kind: str, changes: Rope | None, sliding: Rope | None) -> tuple[dict[str, Any], Any]:
    config, sizes = _mapping()[kind], SIZES.get(kind, {})
    plain = config(**sizes)
    text = plain.get_text_config() if hasattr(plain, "text_config") else plain
    rope = getattr(text, "rope_parameters", None)
    if changes is not None and rope:
        if any(isinstance(value, dict) for value in rope.values()):
            own = {"full_attention": changes, "sliding_attention": changes if sliding is None else sliding}
            changed = {label: _plain(entry) | own[label] for label, entry in rope.items()}
        else:
            changed = _plain(rope) | changes
        if text is plain:
            plain = config(**sizes, rope_parameters=changed)
        else:
            values = {key: value for key, value in text.to_dict().items() if key != "model_type"}
            plain = config(text_config=values | {"model_type": text.model_type, "rope_parameters": changed})
        text = plain.get_text_config() if text is not plain and hasattr(plain, "text_config") else plain
    found: dict[str, Any] = json.loads(plain.to_json_string())
    return found, text


def _plain(rope: Rope) -> Rope:
    """The part of a head that is rotated, without the scaling of an example."""
    kept = {"partial_rotary_factor", "rope_type"} if rope["rope_type"] == "proportional" else {"partial_rotary_factor"}
    return {"rope_type": "default"} | {key: value for key, value in rope.items() if key in kept}


def rope_of(text: Any, layer: int) -> Rope:
    """The rotary embedding of a layer."""
    rope: Rope = text.rope_parameters
    kinds = getattr(text, "layer_types", None)
    nested = any(isinstance(value, dict) for value in rope.values())
    return dict(rope[kinds[layer]]) if nested and kinds else rope


def rotated(text: Any, layer: int) -> int:
    """How many numbers of a head are rotated."""
    rope, own = rope_of(text, layer), getattr(text, "per_layer_config", None)
    text = own[layer] if own else text
    if size := getattr(text, "qk_rope_head_dim", None):
        return int(size)
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if rope["rope_type"] == "proportional":
        return int(head)
    return int(head * rope.get("partial_rotary_factor", 1.0))


def wavelengths(rope: Rope, size: int) -> list[float]:
    """What positions are divided by, pair by pair, as transformers' modeling_rope_utils defines it."""
    theta, kind, factor = rope["rope_theta"], rope["rope_type"], rope.get("factor", 1.0)
    if kind == "proportional":
        return [theta ** (2 * i / size) for i in range(int(size * rope["partial_rotary_factor"]) // 2)]
    plain = [theta ** (2 * i / size) for i in range(size // 2)]
    if kind == "linear":
        return [each * factor for each in plain]
    if kind == "llama3":
        return [_llama3(each, rope) for each in plain]
    if kind == "yarn":
        return _yarn(plain, rope, size)
    if "alpha" in rope:
        return [(theta * rope["alpha"] ** (size / (size - 2))) ** (2 * i / size) for i in range(size // 2)]
    if kind == "longrope":
        return [each * scale for each, scale in zip(plain, rope["long_factor"], strict=True)]
    return plain


def _llama3(plain: float, rope: Rope) -> float:
    low, high, original = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    length = 2 * math.pi * plain
    if length < original / high:
        return plain
    if length > original / low:
        return float(plain * rope["factor"])
    smooth = (original / length - low) / (high - low)
    return 1 / ((1 - smooth) / (plain * rope["factor"]) + smooth / plain)


def _yarn(plain: list[float], rope: Rope, size: int) -> list[float]:
    theta, original = rope["rope_theta"], rope["original_max_position_embeddings"]

    def place(rotations: float) -> float:
        return size * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(place(rope.get("beta_fast", 32))), 0)
    high = min(math.ceil(place(rope.get("beta_slow", 1))), size - 1)
    found = []
    for i, each in enumerate(plain):
        kept = 1 - min(max((i - low) / ((high - low) or 0.001), 0), 1)
        found.append(1 / ((1 - kept) / (each * rope["factor"]) + kept / each))
    return found
