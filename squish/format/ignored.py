"""Keys of config.json that change what a model computes, and the values with which they change nothing.

An architecture whose code does not read such a key computes as if it had that value. With any other one its answers
would be wrong without a word, so the model is refused. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from squish.format.arguments import Arguments

Text = Mapping[str, Any]


_LARGEST = 1 << 63


class Ignored(Exception):
    """The code of an architecture would ignore this key of config.json, and it matters."""

    def __init__(self, key: str, value: object) -> None:
        super().__init__(key)
        self.key, self.value = key, value


def _is(*neutral: object) -> Callable[[object, Text], bool]:
    def holds(value: object, text: Text) -> bool:
        return any(close(value, each) for each in neutral)

    return holds


def _is_head_size(power: float) -> Callable[[object, Text], bool]:
    def holds(value: object, text: Text) -> bool:
        return (size := head_size(text)) is not None and close(value, size**power)

    return holds


def _every_fourth(value: object, text: Text) -> bool:
    return isinstance(value, list) and all(bool(each) == ((i + 1) % 4 != 0) for i, each in enumerate(value))


_OFF = _is(0, False)
_ONE = _is(1, True)
# key → whether a value is what code does that knows nothing of the key; None always is.
_NEUTRAL: Mapping[str, Callable[[object, Text], bool]] = {
    "attn_logit_softcapping": _OFF,
    "final_logit_softcapping": _OFF,
    "attention_logit_cap": _OFF,
    "logit_scale": _ONE,
    "logits_scaling": _ONE,
    "output_multiplier": _ONE,
    "embedding_multiplier": _ONE,
    "residual_multiplier": _ONE,
    "attention_multiplier": _is_head_size(-0.5),
    "query_pre_attn_scalar": _is_head_size(1),
    "attention_value_scale": _ONE,
    "scale_emb": _ONE,
    "clip_qkv": _OFF,
    "scale_attn_weights": _ONE,
    "scale_attn_by_inverse_layer_idx": _OFF,
    "use_bidirectional_attention": _is(False, "vision"),
    "full_attn_alpha_factor": _ONE,
    "full_attn_beta_factor": _ONE,
    "linear_attn_alpha_factor": _ONE,
    "linear_attn_beta_factor": _ONE,
    "mlp_alpha_factor": _ONE,
    "mlp_beta_factor": _ONE,
    "routed_scaling_factor": _ONE,
    "norm_topk_prob": _OFF,
    "moe_apply_router_weight_on_input": _OFF,
    "no_rope_layers": _every_fourth,
    "no_rope_layer_interval": _is(4),
    "swiglu_limit": _OFF,
    "swiglu_alpha": _ONE,
    "alibi": _OFF,
    "parallel_residual_scale": _ONE,
    "mup_attn_multiplier": _ONE,
    "mup_embedding_multiplier": _ONE,
    "mup_width_multiplier": _ONE,
}
# Where the code has the number itself: (module, key) → that number.
_WRITTEN: Mapping[tuple[str, str], object] = {
    ("gpt_oss", "swiglu_limit"): 7.0,
    ("gpt_oss", "swiglu_alpha"): 1.702,
    ("nanochat", "final_logit_softcapping"): 15.0,
}
_ACTIVATIONS = ("hidden_activation", "hidden_act", "activation_function")
# What the names of functions in a module show of its activation, and the names that config.json has for it.
_FAMILIES = (
    (("silu", "swiglu"), {"silu", "swish"}),
    (("gelu", "geglu"), {"gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gegelu"}),
    (("relu2", "relu_squared"), {"relu2"}),
    (("xielu",), {"xielu"}),
)
# Keys that only count once a text is longer than this many tokens.
_WINDOWS = ("sliding_window", "attention_chunk_size", "floor_scale")


def refuse(text: Text, arguments: Arguments) -> None:
    """Raises Ignored for the first key that matters and is not read."""
    for key, neutral in _NEUTRAL.items():
        value = text.get(key)
        if value is None or arguments.reads(key):
            continue
        written = _WRITTEN.get((arguments.module, key))
        if not (neutral(value, text) if written is None else close(value, written)):
            raise Ignored(key, value)
    named = next((each for each in _ACTIVATIONS if isinstance(text.get(each), str)), None)
    if named is not None and not arguments.first(*_ACTIVATIONS):
        words = " ".join(arguments.words).lower()
        names = [names for parts, names in _FAMILIES if any(part in words for part in parts)]
        if names and text[named] not in set[str]().union(*names):
            raise Ignored(named, text[named])


def exact_tokens(text: Text, arguments: Arguments) -> int | None:
    """Up to how many tokens the code computes what config.json says, where it ignores windows; None: any number."""
    found = [text.get(key) for key in _WINDOWS if not reads_window(key, text, arguments)]
    sizes = [int(each) for each in found if is_number(each) and each >= 1]
    kinds = text.get("layer_types")
    windowed = not isinstance(kinds, list) or any("sliding" in str(kind) or "chunked" in str(kind) for kind in kinds)
    # Architectures that say how many layers have no window have none until they are switched on.
    used = text.get("use_sliding_window", "max_window_layers" not in text)
    return min(sizes) if sizes and windowed and used is not False else None


def reads_window(key: str, text: Text, arguments: Arguments) -> bool:
    """Whether the code computes the window that a key gives, in layers that are known to have one."""
    if key != "sliding_window":
        return arguments.reads(key)
    if arguments.module == "llama" and not text.get("layer_types"):
        return False  # it windows layers that are named, and no others
    return arguments.first("sliding_window", "sliding_window_size", "attention_window_size") is not None


def head_size(text: Text) -> int | None:
    """Numbers of one attention head."""
    size, hidden = text.get("head_dim"), first_value(text, "hidden_size", "n_embd", "d_model")
    heads = first_value(text, "num_attention_heads", "n_head", "n_heads")
    if isinstance(size, int) and size > 0:
        return size
    return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads > 0 else None


def first_value(text: Text, *keys: str) -> Any:
    """The value under the first of these keys that has one."""
    return next((text[key] for key in keys if text.get(key) is not None), None)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is one that can be calculated with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < _LARGEST


def close(value: object, other: object) -> bool:
    """Whether two values are the same, numbers up to rounding."""
    if isinstance(value, bool) or isinstance(other, bool):
        return value == other
    if is_number(value) and is_number(other):
        return math.isclose(value, other, rel_tol=1e-5)
    return value == other
