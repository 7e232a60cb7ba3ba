"""Gemma: norms that have one added, windows, soft caps, and tokens per layer."""

from __future__ import annotations

import math
from collections.abc import Callable

from squish.worker.gguf.family import (
    LESS_ONE,
    ROWS,
    Config,
    Destination,
    Family,
    Table,
    always,
    count,
    cut,
    like,
    nothing,
    number,
    of_kind,
    per_layer,
    windowed,
)
from squish.worker.gguf.keys import ModelKeys

_NORMS: Table = {
    "attn_norm": Destination("input_layernorm", LESS_ONE),
    "post_attention_norm": Destination("post_attention_layernorm", LESS_ONE),
    "ffn_norm": Destination("pre_feedforward_layernorm", LESS_ONE),
    "post_ffw_norm": Destination("post_feedforward_layernorm", LESS_ONE),
    "attn_q_norm": Destination("self_attn.q_norm", LESS_ONE),
    "attn_k_norm": Destination("self_attn.k_norm", LESS_ONE),
}
_TOP: Table = {"output_norm": Destination("model.norm", LESS_ONE)}


_PLAIN_NORMS: Table = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PER_LAYER: Table = {
    "inp_gate": "per_layer_input_gate",
    "proj": "per_layer_projection",
    "post_norm": "post_per_layer_input_norm",
}


def _each(name: str) -> Callable[[Config], dict[str, int]]:
    """One matrix for each input but the first."""
    return lambda config: {f"{name}.{at}": config["hidden_size"] for at in range(config["altup_num_inputs"] - 1)}


def _gate_and_up(config: Config) -> dict[str, int]:
    rows = config["moe_intermediate_size"]
    return {"experts.switch_glu.gate_proj": rows, "experts.switch_glu.up_proj": rows}


def _rows_per_layer(keys: ModelKeys, config: Config) -> int | None:
    info = keys.header.tensors.get("per_layer_token_embd.weight")
    return None if info is None else info.shape[0]


_each_inner = per_layer("feed_forward_length")


def _sparsity(keys: ModelKeys, config: Config) -> list[float]:
    """The part of a layer's gates that is cut off: the file has how many deviations above the mean the cut lies."""
    scales = keys.floats("activation_sparsity_scale") or [-math.inf] * config["num_hidden_layers"]
    return [round((1 + math.erf(each / math.sqrt(2))) / 2, 6) for each in scales]


def _keys_are_values(keys: ModelKeys, config: Config) -> bool:
    """Whether the layers that see everything have no values of their own."""
    kinds = config["layer_types"]
    first = kinds.index("full_attention") if "full_attention" in kinds else 0
    return f"blk.{first}.attn_v.weight" not in keys.header.tensors


def _two_ropes(keys: ModelKeys, config: Config) -> dict[str, object]:
    full = {"rope_type": "default", **(config.get("rope_scaling") or {}), "rope_theta": config["rope_theta"]}
    local = keys.number("rope.freq_base_swa") or 10_000.0
    return {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": local}}


def _head_or_row(keys: ModelKeys, config: Config) -> object:
    """What the queries are divided by the root of: the 27B models of Gemma 2 and 3 have a number of their own."""
    return config["hidden_size"] // config["num_attention_heads"] if _largest(config) else config["head_dim"]


def _largest(config: Config) -> bool:
    return (config["num_hidden_layers"], config["hidden_size"]) in ((46, 4608), (62, 5376))


FAMILIES = {
    "gemma": Family(
        "gemma", tensors={**_NORMS, "ffn_norm": Destination("post_attention_layernorm", LESS_ONE)}, top=_TOP
    ),
    "gemma2": Family(
        "gemma2",
        tensors=_NORMS,
        top=_TOP,
        config={
            "attn_logit_softcapping": number("attn_logit_softcapping", 50.0),
            "final_logit_softcapping": number("final_logit_softcapping", 30.0),
            "query_pre_attn_scalar": _head_or_row,
            "sliding_window": count("attention.sliding_window", 4096),
        },
    ),
    "gemma3": Family(
        "gemma3_text",
        tensors=_NORMS,
        top=_TOP,
        config={
            "query_pre_attn_scalar": _head_or_row,
            "sliding_window": count("attention.sliding_window", 0),
            "sliding_window_pattern": lambda keys, config: (
                (keys.count("attention.sliding_window_pattern") or 6) if config["sliding_window"] else 1
            ),
            "rope_local_base_freq": number("rope.freq_base_swa", 10_000.0),
            "final_logit_softcapping": number("final_logit_softcapping"),
            "rope_theta": number("rope.freq_base", 1_000_000.0),
        },
    ),
    "gemma3n": Family(
        "gemma3n",
        wrapped=True,
        layers="model.language_model.layers",
        tensors={
            **_PLAIN_NORMS,
            **_PER_LAYER,
            "altup_correct_scale": Destination("=altup.correct_output_scale"),
            "altup_correct_coef": "altup.correction_coefs",
            "altup_predict_coef": "altup.prediction_coefs",
            "altup_router": "altup.modality_router",
            "altup_router_norm": "altup.router_norm",
            "laurel_l": "laurel.linear_left",
            "laurel_r": "laurel.linear_right",
            "laurel_post_norm": "laurel.post_laurel_norm",
        },
        top={
            "token_embd": "model.language_model.embed_tokens",
            "output_norm": "model.language_model.norm",
            "per_layer_token_embd": "model.language_model.embed_tokens_per_layer",
            "per_layer_model_proj": "model.language_model.per_layer_model_projection",
            "per_layer_proj_norm": "model.language_model.per_layer_projection_norm",
            "altup_proj": cut(_each("model.language_model.altup_projections"), ROWS),
            "altup_unembd_proj": cut(_each("model.language_model.altup_unembed_projections"), ROWS),
        },
        config={
            "num_kv_shared_layers": count("attention.shared_kv_layers", 0),
            "vocab_size_per_layer_input": _rows_per_layer,
            "sliding_window": count("attention.sliding_window", 512),
            "layer_types": windowed(5),
            "rope_local_base_freq": number("rope.freq_base_swa", 10_000.0),
            "rope_theta": number("rope.freq_base", 1_000_000.0),
            "final_logit_softcapping": number("final_logit_softcapping", 30.0),
            "intermediate_size": _each_inner,
            "activation_sparsity_pattern": _sparsity,
            "hidden_size_per_layer_input": count("embedding_length_per_layer_input"),
            "altup_num_inputs": count("altup.num_inputs", 4),
            "altup_active_idx": count("altup.active_idx", 0),
            "altup_coef_clip": always(120.0),
            "altup_correct_scale": always(True),
            "laurel_rank": lambda keys, config: keys.header.tensors["blk.0.laurel_l.weight"].shape[0],
        },
    ),
    "gemma4": Family(
        "gemma4_text",
        tensors={
            **_PLAIN_NORMS,
            **_PER_LAYER,
            "layer_output_scale": Destination("=layer_scalar"),
            "ffn_gate_inp": Destination("router.proj"),
            "ffn_gate_inp_scale": Destination("=router.scale"),
            "ffn_down_exps_scale": Destination("=router.per_expert_scale"),
            "ffn_gate_up_exps": cut(_gate_and_up),
            "ffn_down_exps": "experts.switch_glu.down_proj",
            "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
            "post_ffw_norm_1": "post_feedforward_layernorm_1",
            "post_ffw_norm_2": "post_feedforward_layernorm_2",
        },
        surplus=("attn_k", "attn_v", "attn_k_norm"),
        top={
            "per_layer_token_embd": "model.embed_tokens_per_layer",
            "per_layer_model_proj": "model.per_layer_model_projection",
            "per_layer_proj_norm": "model.per_layer_projection_norm",
        },
        config={
            "layer_types": windowed(6),
            "sliding_window": count("attention.sliding_window", 512),
            "global_head_dim": like("head_dim"),
            "head_dim": count("attention.key_length_swa"),
            "num_global_key_value_heads": of_kind("full_attention", "attention.head_count_kv"),
            "num_key_value_heads": of_kind("sliding_attention", "attention.head_count_kv"),
            "num_kv_shared_layers": count("attention.shared_kv_layers", 0),
            "hidden_size_per_layer_input": count("embedding_length_per_layer_input", 0),
            "vocab_size_per_layer_input": _rows_per_layer,
            "use_double_wide_mlp": lambda keys, config: len(set(keys.numbers("feed_forward_length") or ())) > 1,
            "intermediate_size": lambda keys, config: min(_each_inner(keys, config)),
            "attention_k_eq_v": _keys_are_values,
            "enable_moe_block": lambda keys, config: bool(keys.count("expert_count")),
            "num_experts": lambda keys, config: keys.count("expert_count") or None,
            "top_k_experts": count("expert_used_count"),
            "moe_intermediate_size": count("expert_feed_forward_length"),
            "final_logit_softcapping": number("final_logit_softcapping", 30.0),
            "rope_parameters": _two_ropes,
            "rope_scaling": nothing,
            "partial_rotary_factor": nothing,
        },
        known=("attention.value_length_swa", "rope.dimension_count_swa"),
    ),
}
