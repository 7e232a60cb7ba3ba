"""Families with experts, and with layers that keep a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.worker.gguf.cases import GRANITE, LONG_FACTORS, PAIRED, YARN, Case, Change, Floats
from tests.worker.gguf.writer import Value

_EXPERTS: dict[str, Value] = {"expert_count": 4, "expert_used_count": 2}
_SMALL: dict[str, Value] = {**_EXPERTS, "expert_feed_forward_length": 32}
_MERGED = (("switch_mlp", "experts"),)
_SPARSE = (
    ("switch_mlp.gate_proj", "experts.w1"), ("switch_mlp.up_proj", "experts.w3"),
    ("switch_mlp.down_proj", "experts.w2"),
)  # fmt: skip
_BIAS = (("gate.e_score_correction_bias", "gate.e_score_correction.bias"),)
_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
_NUMBERED = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_ROUTED = {
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "first_k_dense_replace": 1, "routed_scaling_factor": 1.5, "norm_topk_prob": True, "n_group": 1, "topk_group": 1,
}  # fmt: skip
_ROUTED_KEYS: dict[str, Value] = {
    **_SMALL, "expert_shared_count": 1, "leading_dense_block_count": 1, "expert_weights_scale": 1.5,
    "expert_weights_norm": True, "expert_gating_func": 2,
}  # fmt: skip
_PLAIN = {"routed_scaling_factor": 1.0, "norm_topk_prob": False, "topk_method": "greedy"}
_PLAIN_KEYS: dict[str, Value] = {"expert_weights_scale": 1.0, "expert_weights_norm": False, "expert_gating_func": 1}
_LATENT = {
    "kv_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "tie_word_embeddings": False,
    "num_key_value_heads": 4, "head_dim": None,
}  # fmt: skip
_LATENT_KEYS: dict[str, Value] = {
    **_ROUTED_KEYS, "attention.kv_lora_rank": 32, "rope.dimension_count": 8, "attention.key_length": 40,
    "attention.value_length": 32, "attention.key_length_mla": 24, "attention.value_length_mla": 16,
    "attention.head_count_kv": 1,
}  # fmt: skip
_LINEAR = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4, "full_attention_interval": 2, "partial_rotary_factor": 0.5,
}  # fmt: skip
_LINEAR_KEYS: dict[str, Value] = {
    "ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.group_count": 2, "ssm.time_step_rank": 4, "ssm.inner_size": 32,
    "full_attention_interval": 2, "rope.dimension_count": 8,
}  # fmt: skip
_SHARED_EXPERT: dict[str, Value] = {**_SMALL, "expert_shared_feed_forward_length": 48}
_DT = (("dt_bias", "dt_proj.bias"),)


def _negated(array: Floats, config: Mapping[str, Any]) -> Floats:
    return -np.exp(array)


def _squeezed(array: Floats, config: Mapping[str, Any]) -> Floats:
    return array.squeeze()


_STATE: dict[str, Change] = {"ssm_a": _negated, "ssm_conv1d.weight": _squeezed, "shortconv.conv.weight": _squeezed}


def _column(array: Floats, config: Mapping[str, Any]) -> Floats:
    return array.reshape(*array.shape, 1)


def _column_negated(array: Floats, config: Mapping[str, Any]) -> Floats:
    return -np.exp(array).reshape(*array.shape, 1)


_MAMBA: dict[str, Change] = {"ssm_a": _column_negated, "ssm_d": _column, "ssm_conv1d.weight": _squeezed}


def _latent(name: str, array: Floats, config: Mapping[str, Any]) -> dict[str, Floats]:
    if "kv_b_proj" not in name:
        return {name: array}
    nope, value = config["qk_nope_head_dim"], config["v_head_dim"]
    heads = array.reshape(config["num_attention_heads"], nope + value, -1)
    return {
        name.replace("kv_b_proj", "k_b_proj"): heads[:, :nope].swapaxes(1, 2),
        name.replace("kv_b_proj", "v_b_proj"): heads[:, nope:],
    }


def _shared(name: str, array: Floats, config: Mapping[str, Any]) -> dict[str, Floats]:
    if "shared_mlp.input_linear" not in name:
        return {name: array}
    gate, up = np.split(array, 2)
    return {
        "=" + name.replace("shared_mlp.input_linear", "ffn_gate_shexp"): gate,
        "=" + name.replace("shared_mlp.input_linear", "ffn_up_shexp"): up,
    }


def _next(name: str, array: Floats, config: Mapping[str, Any]) -> dict[str, Floats]:
    if "in_proj_qkvz" not in name:
        return {name: array}
    heads, key = config["linear_num_key_heads"], config["linear_key_head_dim"]
    value = config["linear_num_value_heads"] // heads * config["linear_value_head_dim"]
    parts = np.split(array.reshape(heads, -1, array.shape[-1]), [key, 2 * key, 2 * key + value], axis=1)
    q, k, v, z = (part.reshape(-1, array.shape[-1]) for part in parts)
    return {
        "=" + name.replace("linear_attn.in_proj_qkvz", "attn_qkv"): np.concatenate([q, k, v]),
        "=" + name.replace("linear_attn.in_proj_qkvz", "attn_gate"): z,
    }


def _tiled(size: str | None, axis: int = 0, behind: bool = False) -> Change:
    """Value heads: all of a key head together become the first of each key head, then the second of each."""

    def change(array: Floats, config: Mapping[str, Any]) -> Floats:
        keys = config["linear_num_key_heads"]
        each, length = config["linear_num_value_heads"] // keys, config[size] if size else 1
        start = 2 * keys * config["linear_key_head_dim"] if behind else 0
        moved = np.moveaxis(array, axis, 0)
        order = np.arange(keys * each * length).reshape(keys, each, length).swapaxes(0, 1).reshape(-1)
        return np.moveaxis(np.concatenate([moved[:start], moved[start:][order]]), 0, axis)

    return change


_V = "linear_value_head_dim"
_TILED: dict[str, Change] = {
    "attn_qkv.weight": _tiled(_V, behind=True),
    "attn_gate.weight": _tiled(_V),
    "ssm_beta.weight": _tiled(None),
    "ssm_alpha.weight": _tiled(None),
    "ssm_out.weight": _tiled(_V, axis=1),
    "ssm_a": lambda array, config: -np.exp(_tiled(None)(array, config)),
    "ssm_dt.bias": _tiled(None),
    "ssm_conv1d.weight": lambda array, config: _tiled(_V, behind=True)(array.squeeze(), config),
}
_LANGUAGE = (("language_model.model.", "model."), ("language_model.lm_head", "lm_head"))

MOE = [
    Case(
        "llama", {"model_type": "mixtral", **_LOCAL, "tie_word_embeddings": False}, _EXPERTS, _SPARSE, PAIRED,
        label="mixtral",
    ),
    Case(
        "phimoe",
        {
            "model_type": "phimoe", **_LOCAL, "tie_word_embeddings": False,
            "rope_scaling": {
                "rope_type": "longrope", "original_max_position_embeddings": 32, "long_factor": LONG_FACTORS,
                "short_factor": [1.0] * 8, "long_mscale": 1.1832159566, "short_mscale": 1.1832159566,
            },
        },
        {**_EXPERTS, "rope.scaling.original_context_length": 32, "rope.scaling.attn_factor": 1.1832159566}, _SPARSE,
    ),
    Case(
        "qwen2moe",
        {"model_type": "qwen2_moe", **_NUMBERED, "shared_expert_intermediate_size": 48, "tie_word_embeddings": False},
        _SHARED_EXPERT, _MERGED, {"ffn_gate_inp_shexp.weight": _squeezed},
    ),
    *(
        Case(
            architecture,
            {
                "model_type": "qwen3_moe", **_NUMBERED, "decoder_sparse_step": 1, "mlp_only_layers": [],
                "norm_topk_prob": True,
            },
            _SMALL, _MERGED,
        )
        for architecture in ("qwen3moe", "qwen3vlmoe")
    ),
    Case(
        "granitemoe",
        {
            "model_type": "granitemoe", "attention_multiplier": 0.2, "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5, "logits_scaling": 2.0, "attention_bias": False, **_LOCAL,
        },
        {**GRANITE, **_EXPERTS}, _SPARSE, PAIRED,
    ),
    Case("olmoe", {"model_type": "olmoe", "num_experts": 4, "num_experts_per_tok": 2}, _EXPERTS, _MERGED),
    Case(
        "glm4moe",
        {
            "model_type": "glm4_moe", **_ROUTED, "attention_bias": True, "partial_rotary_factor": 0.5,
            "use_qk_norm": True, "tie_word_embeddings": False,
        },
        {**_ROUTED_KEYS, "rope.dimension_count": 8}, (*_MERGED, *_BIAS),
    ),
    Case(
        "dots1", {"model_type": "dots1", **_ROUTED, "tie_word_embeddings": False}, _ROUTED_KEYS, _BIAS
    ),
    Case(
        "deepseek", {"model_type": "deepseek", **_ROUTED, **_PLAIN, "tie_word_embeddings": False},
        {**_ROUTED_KEYS, **_PLAIN_KEYS}, _MERGED, PAIRED,
    ),
    Case(
        "deepseek2", {"model_type": "deepseek_v2", **_LATENT, **_ROUTED, **_PLAIN, "q_lora_rank": None},
        {**_LATENT_KEYS, **_PLAIN_KEYS}, _MERGED, split=_latent,
    ),
    Case(
        "deepseek2",
        {
            "model_type": "deepseek_v3", **_LATENT, **_ROUTED, "q_lora_rank": 24,
            "rope_scaling": {
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 1.0,
                "mscale_all_dim": 1.0,
            },
        },
        {**_LATENT_KEYS, **YARN, "rope.scaling.yarn_log_multiplier": 0.1, "attention.q_lora_rank": 24},
        (*_MERGED, *_BIAS, ("embed_q", "k_b_proj"), ("unembed_out", "v_b_proj")), label="deepseek 3",
    ),
    Case(
        "gpt-oss",
        {"model_type": "gpt_oss", **_LOCAL, "sliding_window": 4, "tie_word_embeddings": False,
         "layer_types": ["sliding_attention", "full_attention"]},
        {**_EXPERTS, "expert_feed_forward_length": 96, "attention.sliding_window": 4},
        (("self_attn.sinks", "self_attn.sinks.weight"),),
    ),
    Case(
        "ernie4_5-moe",
        {
            "model_type": "ernie4_5_moe", "use_bias": False, "moe_num_experts": 4, "moe_k": 2,
            "moe_intermediate_size": 32, "moe_layer_start_index": 1, "moe_num_shared_experts": 1,
        },
        {
            **_SMALL, "leading_dense_block_count": 1, "expert_shared_count": 1, "interleave_moe_layer_step": 1,
            "expert_shared_feed_forward_length": 48,
        },
        _MERGED,
    ),
    Case(
        "minimax-m2",
        {
            "model_type": "minimax", **_LOCAL, "scoring_func": "sigmoid", "use_qk_norm": True, "rotary_dim": 8,
            "shared_intermediate_size": 0, "intermediate_size": 32, "tie_word_embeddings": False,
        },
        {**_SMALL, "rope.dimension_count": 8, "expert_gating_func": 2},
        (*_SPARSE, ("e_score_correction_bias", "e_score_correction.bias")),
    ),
    Case(
        "exaone-moe",
        {
            "model_type": "exaone_moe", **_NUMBERED, "num_shared_experts": 1, "norm_topk_prob": True,
            "routed_scaling_factor": 1.5, "n_group": 1, "topk_group": 1, "is_moe_layer": [False, True],
            "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "tie_word_embeddings": False,
        },
        {
            **_ROUTED_KEYS, "attention.sliding_window": 4, "attention.sliding_window_pattern": [True, False],
            "rope.scaling.type": "none", "expert_shared_feed_forward_length": 32,
        },
        (*_MERGED, *_BIAS),
    ),
    Case(
        "llama4",
        {
            "model_type": "llama4_text", "attention_bias": False, "attention_chunk_size": 8192,
            "interleave_moe_layer_step": 2, "intermediate_size_mlp": 96, "intermediate_size": 32,
            "num_experts_per_tok": 1, "num_local_experts": 4, "rope_scaling": None, "use_qk_norm": True,
            "tie_word_embeddings": False, "num_hidden_layers": 4,
        },
        {**_SMALL, "feed_forward_length": 96, "expert_used_count": 1, "interleave_moe_layer_step": 2}, _LANGUAGE,
        wrapped="llama4",
    ),
    Case(
        "lfm2",
        {
            "model_type": "lfm2", "norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3, "block_dim": 64,
            "block_multiple_of": 1, "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False,
            "block_ff_dim": 96, "layer_types": ["conv", "full_attention"],
        },
        {"shortconv.l_cache": 3, "attention.head_count_kv": [0, 2]}, changes=_STATE,
    ),
    Case(
        "lfm2moe",
        {
            "model_type": "lfm2_moe", "norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3, "use_expert_bias": True,
            "layer_types": ["conv", "full_attention"], **_NUMBERED, "norm_topk_prob": True, "num_dense_layers": 1,
        },
        {
            **_SMALL, "shortconv.l_cache": 3, "attention.head_count_kv": [0, 2], "leading_dense_block_count": 1,
            "expert_gating_func": 2,
        },
        (
            ("switch_mlp.gate_proj", "experts.w1"), ("switch_mlp.up_proj", "experts.w3"),
            ("switch_mlp.down_proj", "experts.w2"), ("feed_forward.gate_proj", "feed_forward.w1"),
            ("feed_forward.up_proj", "feed_forward.w3"), ("feed_forward.down_proj", "feed_forward.w2"),
            ("expert_bias", "expert_bias.bias"),
            ("model.layers.1.feed_forward.experts", "layers.1.feed_forward.experts"),
        ),
        _STATE,
    ),
    Case(
        "falcon-h1",
        {
            "model_type": "falcon_h1", "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16,
            "mamba_n_groups": 1, "mamba_rms_norm": False, "tie_word_embeddings": False,
            **{f"{name}_multiplier": 1.0 for name in
               ("attention_in", "attention_out", "embedding", "key", "lm_head", "ssm_in", "ssm_out")},
            "mlp_multipliers": [1.0, 1.0], "ssm_multipliers": [1.0] * 5,
        },
        {
            "ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.group_count": 1, "ssm.time_step_rank": 4,
            "ssm.inner_size": 64,
        },
        _DT, _MAMBA,
    ),
    Case(
        "granitehybrid",
        {
            "model_type": "granitemoehybrid", "attention_multiplier": 0.2, "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5, "logits_scaling": 2.0, "attention_bias": False,
            "layer_types": ["mamba", "attention"], "mamba_n_heads": 8, "mamba_n_groups": 1, "mamba_d_state": 16,
            "mamba_d_head": 16, "mamba_d_conv": 4, "mamba_conv_bias": True, "mamba_proj_bias": False,
            "shared_intermediate_size": 96, "position_embedding_type": "nope",
        },
        {
            **GRANITE, "ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.group_count": 1, "ssm.time_step_rank": 8,
            "ssm.inner_size": 128, "attention.head_count_kv": [0, 2], "rope.scaling.finetuned": False,
        },
        _DT, {**PAIRED, **_MAMBA, "ssm_norm.weight": lambda array, config: array.reshape(1, -1)},
    ),
    Case(
        "granitehybrid",
        {
            "model_type": "granitemoehybrid", "attention_multiplier": 0.2, "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5, "logits_scaling": 2.0, "attention_bias": False, **_LOCAL,
            "layer_types": ["mamba", "attention"], "mamba_n_heads": 8, "mamba_n_groups": 1, "mamba_d_state": 16,
            "mamba_d_head": 16, "mamba_d_conv": 4, "mamba_conv_bias": True, "mamba_proj_bias": False,
            "shared_intermediate_size": 48, "position_embedding_type": "nope",
        },
        {
            **GRANITE, **_EXPERTS, "ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.group_count": 1,
            "ssm.time_step_rank": 8, "ssm.inner_size": 128, "attention.head_count_kv": [0, 2],
            "rope.scaling.finetuned": False, "expert_shared_feed_forward_length": 48,
        },
        (*_DT, *_SPARSE), {**PAIRED, **_MAMBA, "ssm_norm.weight": lambda array, config: array.reshape(1, -1)},
        label="granitehybrid with experts", split=_shared,
    ),
    Case(
        "afmoe",
        {
            "model_type": "afmoe", **_NUMBERED, "num_shared_experts": 1, "num_dense_layers": 1, "sliding_window": 4,
            "layer_types": ["sliding_attention"] * 3 + ["full_attention"], "route_norm": True, "route_scale": 1.5,
            "score_func": "sigmoid", "mup_enabled": True, "n_group": 1, "topk_group": 1, "num_hidden_layers": 4,
            "tie_word_embeddings": False,
        },
        {**_ROUTED_KEYS, "attention.sliding_window": 4}, (("mlp.expert_bias", "mlp.expert_bias.bias"),),
    ),
    Case(
        "qwen3next",
        {
            "model_type": "qwen3_next", **_LINEAR, **_NUMBERED, "shared_expert_intermediate_size": 48,
            "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True, "tie_word_embeddings": False,
        },
        {**_LINEAR_KEYS, **_SHARED_EXPERT}, (*_MERGED, *_DT), {**_STATE, "ffn_gate_inp_shexp.weight": _squeezed},
        split=_next,
    ),
    Case(
        "qwen35", {"model_type": "qwen3_5_text", **_LINEAR}, _LINEAR_KEYS, (*_LANGUAGE, *_DT), _TILED, wrapped="qwen3_5"
    ),
    Case(
        "qwen35moe",
        {
            "model_type": "qwen3_5_moe_text", **_LINEAR, **_NUMBERED, "shared_expert_intermediate_size": 48,
            "decoder_sparse_step": 1, "norm_topk_prob": True,
        },
        {**_LINEAR_KEYS, **_SHARED_EXPERT}, (*_LANGUAGE, *_MERGED, *_DT),
        {**_TILED, "ffn_gate_inp_shexp.weight": _squeezed}, wrapped="qwen3_5_moe",
    ),
]  # fmt: skip
