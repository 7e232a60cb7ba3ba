"""Which layers of a model are of which kind, and keys that architectures name differently, in place. Pure."""

from __future__ import annotations

from typing import Any

from squish.format.arguments import Arguments
from squish.format.ignored import Ignored, first_value, head_size, is_number

# Names of one thing. What the code reads is filled from what config.json has.
_SAME = (
    ("rms_norm_eps", "layer_norm_eps", "layernorm_epsilon", "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
    ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_k", "moe_topk", "top_k_experts"),
    ("sliding_window_size", "sliding_window", "attention_window_size"),
    ("num_key_value_heads", "num_attention_groups", "n_kv_heads"),
    ("n_ctx", "n_positions"),
    ("block_dim", "hidden_size"),
)
# What goes without saying for transformers, and has to be said to the code; by module or model_type.
_SAID: dict[str, dict[str, object]] = {
    "apertus": {"mlp_bias": False, "post_norm": False, "qk_norm": True},
    "glm_moe_dsa": {"topk_method": "noaux_tc", "scoring_func": "sigmoid", "moe_layer_freq": 1},
    "longcat_flash": {
        "attention_method": "MLA", "zero_expert_type": "identity", "mla_scale_q_lora": True, "mla_scale_kv_lora": True,
    },
    "minimax": {"shared_intermediate_size": 0},
    "qwen3_vl_moe_text": {"norm_topk_prob": True},
}  # fmt: skip
# Kinds of layers that the code has another name for.
_KINDS = {"granitemoehybrid": {"linear_attention": "mamba", "full_attention": "attention"}}
_FULL, _SLIDING = "full_attention", "sliding_attention"


def settle(text: dict[str, Any], arguments: Arguments) -> None:
    """Raises Ignored where the code would take other layers for windowed ones."""
    for names in _SAME:
        for key in names:
            if key in arguments.fields and text.get(key) is None and (value := first_value(text, *names)) is not None:
                text[key] = value
    for of in (arguments.module, str(text.get("model_type"))):
        for key, value in _SAID.get(of, {}).items():
            text.setdefault(key, value)
    heads = text.get("num_attention_heads")
    if "num_key_value_heads" in arguments.fields and text.get("num_key_value_heads") is None and is_number(heads):
        text["num_key_value_heads"] = heads
    if "head_dim" in arguments.fields and text.get("head_dim") is None and (size := head_size(text)) is not None:
        text["head_dim"] = size
    _settle_full_heads(text, arguments)
    _settle_kinds(text, arguments)
    _settle_experts(text, arguments)


def _settle_full_heads(text: dict[str, Any], arguments: Arguments) -> None:
    """Heads of layers that see everything, where their size differs: transformers names such layers one by one."""
    own = text.get("per_layer_config")
    entries = [each for each in own.values() if isinstance(each, dict)] if isinstance(own, dict) else []
    for theirs, ours in (("head_dim", "global_head_dim"), ("num_key_value_heads", "num_global_key_value_heads")):
        values = {each[theirs] for each in entries if isinstance(each.get(theirs), int)}
        if len(values) == 1 and ours in arguments.fields and text.get(ours) is None:
            text[ours] = values.pop()


def _settle_experts(text: dict[str, Any], arguments: Arguments) -> None:
    """Which layers have experts, where the code reads it otherwise than `mlp_layer_types` says it."""
    kinds = text.get("mlp_layer_types")
    if not isinstance(kinds, list):
        return
    if "first_k_dense_replace" in arguments.fields and text.get("first_k_dense_replace") is None:
        text["first_k_dense_replace"] = next((i for i, kind in enumerate(kinds) if kind != "dense"), len(kinds))
    if "is_moe_layer" in arguments.fields and text.get("is_moe_layer") is None:
        text["is_moe_layer"] = [kind != "dense" for kind in kinds]


def _settle_kinds(text: dict[str, Any], arguments: Arguments) -> None:
    """layer_types, or the pattern that some code reads in its place."""
    kinds, window = text.get("layer_types"), text.get("sliding_window")
    if isinstance(kinds, list) and arguments.module in _KINDS:
        text["layer_types"] = kinds = [_KINDS[arguments.module].get(str(kind), kind) for kind in kinds]
    if not isinstance(kinds, list) or not kinds or not arguments.reads("sliding_window_pattern"):
        return
    windowed = [kind == _SLIDING for kind in kinds]
    if arguments.module == "exaone4":
        text["sliding_window_pattern"] = _letters(windowed) if any(windowed) and window else None
        return
    period = windowed.index(False) + 1 if False in windowed else len(kinds) + 1
    if windowed != [bool((i + 1) % period) for i in range(len(kinds))]:
        raise Ignored("layer_types", f"{windowed.count(True)} windowed layers of {len(kinds)}")
    text["sliding_window_pattern"] = period


def _letters(windowed: list[bool]) -> str:
    """The shortest run of L (windowed) and G that is repeated."""
    letters = "".join("L" if each else "G" for each in windowed)
    size = next(n for n in range(1, len(letters) + 1) if all(letters[i] == letters[i % n] for i in range(len(letters))))
    return letters[:size]
