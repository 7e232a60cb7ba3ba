"""Families whose layers, or most of them, keep a state alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.worker.gguf.cases import Case, Change, Floats
from tests.worker.gguf.writer import Value

_NONE = dict.fromkeys(("intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "rope_theta"))
_DT = (("dt_bias", "dt.bias"),)
_ZEROS: dict[str, Value] = {"feed_forward_length": 0, "attention.head_count": 0}
_EXPERTS: dict[str, Value] = {"expert_count": 4, "expert_used_count": 2}


def _negated(array: Floats, config: Mapping[str, Any]) -> Floats:
    return -np.exp(array)


def _squeezed(array: Floats, config: Mapping[str, Any]) -> Floats:
    return array.squeeze()


def _column(array: Floats, config: Mapping[str, Any]) -> Floats:
    return array.reshape(*array.shape, 1)


_STATES: dict[str, Change] = {"ssm_a": _negated, "ssm_conv1d.weight": _squeezed}


def _headed(groups: int) -> dict[str, Change]:
    return {
        "ssm_a": lambda array, config: -np.exp(array).reshape(-1, 1), "ssm_d": _column,
        "ssm_conv1d.weight": _squeezed, "ssm_norm.weight": lambda array, config: array.reshape(groups, -1),
    }  # fmt: skip


_STATE_KEYS: dict[str, Value] = {
    "ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.inner_size": 128, "ssm.time_step_rank": 4,
}  # fmt: skip


# ---- RWKV

_LERPS = "rwkvag"


def _rwkv(name: str, array: Floats, config: Mapping[str, Any]) -> dict[str, Floats]:
    """Mixing in one tensor, low ranks under short names, and a first layer that seems to mix values."""
    if "attn.x_" in name:
        return {"=" + name.replace("attn.x", "x"): array.reshape(1, 1, 1, -1)}
    for end, number in ((".lora.0.weight", "1"), (".lora.2.weight", "2"), (".lora.2.bias", "0")):
        if name.endswith(end):
            plain = name.replace("attn.", "attention.").replace(f"_lora{end}", number)
            dummy = {plain.replace("attention.a", "attention.v"): array} if "layers.0.attn.a_lora" in name else {}
            return {plain: array.squeeze(), **dummy}
    return {name: array.flatten() if "r_k" in name else array}


# ---- Kimi


def _kimi(name: str, array: Floats, config: Mapping[str, Any]) -> dict[str, Floats]:
    if "_conv.conv" not in name:
        return {name: array}
    return {name.replace("_conv.conv", "_conv1d"): array.reshape(1, array.shape[0], 1, -1)}


_NEMOTRON = {
    "model_type": "nemotron_h", "attention_bias": False, "mamba_num_heads": 4, "mamba_head_dim": 32,
    "mamba_proj_bias": False, "ssm_state_size": 16, "conv_kernel": 4, "n_groups": 2, "mlp_bias": False,
    "layer_norm_epsilon": 1e-5, "use_bias": False, "use_conv_bias": True, "tie_word_embeddings": False,
    "rope_theta": None,
}  # fmt: skip
_NEMOTRON_KEYS: dict[str, Value] = {**_STATE_KEYS, "ssm.group_count": 2, "attention.value_length": 16}
_MIXER_EXPERTS = (
    ("backbone.layers.2.mixer.switch_mlp.fc1", "model.layers.2.mlp.experts.up_proj"),
    ("backbone.layers.2.mixer.switch_mlp.fc2", "model.layers.2.mlp.experts.down_proj"),
    ("e_score_correction_bias", "e_score_correction.bias"),
)

STATE = [
    *(
        Case(
            "mamba",
            {
                "model_type": "mamba", **_NONE, "intermediate_size": 128, "state_size": 16, "conv_kernel": 4,
                "use_bias": False, "use_conv_bias": True, "time_step_rank": 4, "tie_word_embeddings": tied,
                "use_bcdt_rms": not tied,
            },
            {**_STATE_KEYS, **_ZEROS, "ssm.dt_b_c_rms": not tied}, changes=_STATES, label=label,
        )
        for label, tied in (("mamba", True), ("falcon mamba", False))
    ),
    Case(
        "mamba2",
        {
            "model_type": "mamba2", **_NONE, "intermediate_size": 128, "num_heads": 4, "head_dim": 32, "state_size": 16,
            "conv_kernel": 4, "n_groups": 1, "use_bias": False, "use_conv_bias": True, "layer_norm_epsilon": 1e-5,
            "time_step_limit": [0.0, float("inf")], "time_step_rank": "auto",
        },
        {**_STATE_KEYS, **_ZEROS, "ssm.group_count": 1, "attention.key_length": None}, (("dt_bias", "dt_proj.bias"),),
        _headed(1),
    ),
    Case(
        "jamba",
        {
            "model_type": "jamba", "num_hidden_layers": 4, "attn_layer_offset": 1, "attn_layer_period": 2,
            "expert_layer_offset": 1, "expert_layer_period": 2, "mamba_d_conv": 4, "mamba_d_state": 16,
            "mamba_expand": 2, "mamba_dt_rank": 4, "num_experts": 4, "num_experts_per_tok": 2, "rope_theta": None,
        },
        {**_STATE_KEYS, **_EXPERTS, "attention.head_count_kv": [0, 2, 0, 2]},
        tuple((f"feed_forward.switch_mlp.{each}_proj", f"mlp.experts.{each}_proj") for each in ("gate", "up", "down")),
        _STATES,
    ),
    Case(
        "jamba",
        {
            "model_type": "jamba", "attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1,
            "expert_layer_period": 2, "mamba_d_conv": 4, "mamba_d_state": 16, "mamba_expand": 2, "mamba_dt_rank": 4,
            "num_experts": 1, "num_experts_per_tok": 1, "tie_word_embeddings": False, "rope_theta": None,
        },
        {**_STATE_KEYS, "expert_count": 1, "expert_used_count": 1, "attention.head_count_kv": [0, 2]}, (), _STATES,
        label="jamba without experts",
    ),
    Case(
        "nemotron_h", {**_NEMOTRON, "hybrid_override_pattern": list("M-*-"), "num_hidden_layers": 4},
        {**_NEMOTRON_KEYS, "attention.head_count_kv": [0, 0, 2, 0], "feed_forward_length": [0, 96, 0, 96]}, _DT,
        _headed(2),
    ),
    Case(
        "nemotron_h_moe",
        {
            **_NEMOTRON, "hybrid_override_pattern": list("M*E"), "num_hidden_layers": 3, "intermediate_size": 32,
            "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 48, "n_group": 1, "topk_group": 1,
            "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "norm_topk_prob": True,
            "routed_scaling_factor": 1.5,
        },
        {
            **_NEMOTRON_KEYS, **_EXPERTS, "attention.head_count_kv": [0, 2, 0], "feed_forward_length": [0, 0, 32],
            "expert_feed_forward_length": 32, "expert_shared_feed_forward_length": 48, "expert_shared_count": 1,
            "expert_weights_norm": True, "expert_weights_scale": 1.5, "expert_group_count": 1,
        },
        (*_DT, *_MIXER_EXPERTS), _headed(2),
    ),
    Case(
        "rwkv7",
        {
            "model_type": "rwkv7", **_NONE, "intermediate_size": 96, "norm_eps": 1e-5, "head_dim": 16,
            "a_low_rank_dim": 8, "v_low_rank_dim": 8, "gate_low_rank_dim": 8, "decay_low_rank_dim": 8,
            "tie_word_embeddings": False, "rms_norm_eps": None,
        },
        {
            "attention.layer_norm_epsilon": 1e-5, "attention.head_count": 0, "wkv.head_size": 16,
            "attention.key_length": None,
            **{f"attention.{each}_lora_rank": 8 for each in ("decay", "iclr", "value_residual_mix", "gate")},
        },
        (
            ("ffn_norm", "ln2"), ("attn_norm", "ln1"), ("model.norm", "model.ln_out"),
            ("attn.g_norm", "attention.ln_x"), ("ffn.", "feed_forward."), ("attn.", "attention."),
        ),
        {
            "time_mix_ln.weight": lambda array, config: array.flatten(),
            "time_mix_ln.bias": lambda array, config: array.flatten(),
        },
        split=_rwkv, joined=(tuple(f".x_{each}" for each in _LERPS), ".time_mix_lerp_fused.weight", 0),
    ),
    Case(
        "kimi-linear",
        {
            "model_type": "kimi_linear", "num_key_value_heads": 4, "model_max_length": 128, "num_experts": 4,
            "moe_intermediate_size": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
            "v_head_dim": 16, "mla_use_nope": True, "num_experts_per_token": 2, "num_shared_experts": 1,
            "routed_scaling_factor": 1.5, "first_k_dense_replace": 1, "tie_word_embeddings": False,
            "linear_attn_config": {
                "num_heads": 4, "head_dim": 16, "short_conv_kernel_size": 4, "kda_layers": [1], "full_attn_layers": [2],
            },
        },
        {
            **_EXPERTS, "attention.head_count_kv": [0, 1], "ssm.conv_kernel": 4, "kda.head_dim": 16,
            "attention.kv_lora_rank": 32, "rope.dimension_count": 8, "attention.key_length": 40,
            "attention.key_length_mla": 24, "attention.value_length_mla": 16, "expert_feed_forward_length": 32,
            "expert_shared_count": 1, "leading_dense_block_count": 1, "expert_weights_scale": 1.5,
            "expert_gating_func": 2,
        },
        (
            ("switch_mlp.gate_proj", "experts.w1"), ("switch_mlp.up_proj", "experts.w3"),
            ("switch_mlp.down_proj", "experts.w2"), ("mlp.experts", "block_sparse_moe.experts"),
            ("mlp.shared_experts", "block_sparse_moe.shared_experts"), ("mlp.gate.", "block_sparse_moe.gate."),
            ("mlp.e_score_correction_bias", "block_sparse_moe.gate.e_score_correction.bias"),
            ("dt_bias", "dt_proj.bias"), ("embed_q", "k_b_proj"), ("unembed_out", "v_b_proj"),
        ),
        {"ssm_a": _negated}, split=_kimi,
    ),
]  # fmt: skip
