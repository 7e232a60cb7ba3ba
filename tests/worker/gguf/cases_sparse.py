"""Families with experts whose layers differ among each other, or that are named in a way of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.worker.gguf.cases import GATE_UP, PAIRED, YARN, Case, Floats
from tests.worker.gguf.writer import Value

_EXPERTS: dict[str, Value] = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32}
_MERGED = (("switch_mlp", "experts"),)
_WINDOWED, _FULL = "sliding_attention", "full_attention"
_ROUTED = {
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "first_k_dense_replace": 1, "routed_scaling_factor": 1.5, "norm_topk_prob": True, "n_group": 1, "topk_group": 1,
    "tie_word_embeddings": False,
}  # fmt: skip
_ROUTED_KEYS: dict[str, Value] = {
    **_EXPERTS, "expert_shared_count": 1, "leading_dense_block_count": 1, "expert_weights_scale": 1.5,
    "expert_weights_norm": True,
}  # fmt: skip
_LATENT = {
    "kv_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "q_lora_rank": 24,
    "num_key_value_heads": 4, "head_dim": None,
}  # fmt: skip
_LATENT_KEYS: dict[str, Value] = {
    **_ROUTED_KEYS, "attention.kv_lora_rank": 32, "rope.dimension_count": 8, "attention.key_length": 40,
    "attention.value_length": 32, "attention.key_length_mla": 24, "attention.value_length_mla": 16,
    "attention.head_count_kv": 1, "attention.q_lora_rank": 24,
}  # fmt: skip
_ABSORBED = (("embed_q", "k_b_proj"), ("unembed_out", "v_b_proj"))


def _queries_keys_values(name: str, array: Floats, config: Mapping[str, Any]) -> dict[str, Floats]:
    if "query_key_value" not in name:
        return {name: array}
    parts = np.split(array, [64, 96])
    return {"=" + name.replace("attention.query_key_value", f"attn_{k}"): v for k, v in zip("qkv", parts, strict=True)}


_LING = {
    "model_type": "bailing_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "norm_topk_prob": True, "first_k_dense_replace": 1, "tie_word_embeddings": False,
}  # fmt: skip
_LING_NAMES = (
    ("mlp.gate.gate_proj", "mlp.gate"), ("mlp.gate.expert_bias", "mlp.gate.expert_bias.bias"), *_MERGED,
)  # fmt: skip

SPARSE = [
    Case(
        "hunyuan-moe",
        {
            "model_type": "hunyuan", "attention_bias": False, "moe_topk": 2, "num_experts": 4, "num_shared_expert": 1,
            "use_mixed_mlp_moe": True, "use_qk_norm": True, "use_cla": False, "cla_share_factor": 2,
            "moe_intermediate_size": 32, "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0},
        },
        {
            **_EXPERTS, "expert_shared_feed_forward_length": 96, "expert_shared_count": 1,
            "rope.freq_base": 10000.0 * 1000 ** (16 / 14), "rope.scaling.type": "none", "rope.scaling.factor": 1.0,
            "rope.scaling.original_context_length": 262144,
        },
        _MERGED,
    ),
    Case(
        "bailingmoe", {**_LING, "num_shared_experts": 2, "first_k_dense_replace": 0},
        {**_EXPERTS, "leading_dense_block_count": 0, "expert_weights_scale": 1.0, "expert_shared_count": 2,
         "expert_weights_norm": True, "rope.dimension_count": 16},
        _LING_NAMES, PAIRED, split=_queries_keys_values,
    ),
    Case(
        "bailingmoe2",
        {
            **_LING, "num_shared_experts": 1, "moe_shared_expert_intermediate_size": 48, "use_qk_norm": True,
            "partial_rotary_factor": 0.5, "score_function": "sigmoid", "moe_router_enable_expert_bias": True,
            "routed_scaling_factor": 2.5, "n_group": 2, "topk_group": 1,
        },
        {
            **_EXPERTS, "leading_dense_block_count": 1, "expert_shared_feed_forward_length": 48,
            "expert_weights_scale": 2.5, "expert_shared_count": 1, "expert_weights_norm": True, "expert_group_count": 2,
            "expert_group_used_count": 1, "expert_gating_func": 2, "rope.dimension_count": 8,
        },
        _LING_NAMES,
    ),
    Case(
        "step35",
        {
            "model_type": "step3p5", "num_attention_groups": 2, "num_hidden_layers": 3, "sliding_window": 4,
            "layer_types": [_FULL, _WINDOWED, _FULL], "partial_rotary_factors": [0.5, 1.0, 0.5],
            "rope_theta": [20000.0, 10000.0, 20000.0], "yarn_only_types": [_FULL],
            "attention_other_setting": {"num_attention_heads": 8, "num_attention_groups": 4},
            "moe_num_experts": 4, "moe_top_k": 2, "moe_intermediate_size": 32, "share_expert_dim": 48,
            "moe_layers_enum": "1,2", "moe_router_scaling_factor": 1.5, "norm_expert_weight": True,
            "swiglu_limits": [0.0, 0.0, 0.5], "swiglu_limits_shared": [0.0, 0.5, 0.0], "tie_word_embeddings": False,
            "num_key_value_heads": None,
        },
        {
            **_EXPERTS, "expert_shared_feed_forward_length": 48, "expert_weights_scale": 1.5,
            "expert_weights_norm": True, "leading_dense_block_count": 1, "moe_every_n_layers": 1,
            "attention.head_count": [4, 8, 4], "attention.head_count_kv": [2, 4, 2], "attention.sliding_window": 4,
            "attention.sliding_window_pattern": [False, True, False], "rope.freq_base": 20000.0,
            "rope.freq_base_swa": 10000.0, "swiglu_clamp_exp": [0.0, 0.0, 0.5], "swiglu_clamp_shexp": [0.0, 0.5, 0.0],
            "attention.value_length": 16,
        },
        (
            ("mlp.switch_mlp", "moe"), ("mlp.gate.gate", "moe.gate"), ("mlp.gate.router_bias", "moe.router_bias.bias"),
            ("mlp.share_expert", "share_expert"),
        ),
    ),
    Case(
        "mimo2",
        {
            "model_type": "mimo_v2_flash", **_ROUTED, "n_shared_experts": None, "hybrid_layer_pattern": [0, 1],
            "moe_layer_freq": [0, 1], "add_swa_attention_sink_bias": True, "add_full_attention_sink_bias": False,
            "sliding_window_size": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "layernorm_epsilon": 1e-5,
            "swa_rope_theta": 20000.0, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "v_head_dim": 8,
            "swa_head_dim": 16, "swa_v_head_dim": 8, "partial_rotary_factor": 0.5, "routed_scaling_factor": 1.0,
        },
        {
            **_EXPERTS, "attention.head_count_kv": [2, 4], "attention.sliding_window": 4,
            "attention.sliding_window_pattern": [0, 1], "attention.value_length": 8, "rope.dimension_count": 8,
            "rope.freq_base_swa": 20000.0, "expert_gating_func": 2,
        },
        (*_MERGED, ("e_score_correction_bias", "e_score_correction.bias"),
         ("attention_sink_bias", "attention_sink_bias.weight")),
    ),
    Case(
        "glm-dsa",
        {
            "model_type": "glm_moe_dsa", **_LATENT, **_ROUTED, "index_head_dim": 16, "index_n_heads": 2,
            "index_topk": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "moe_layer_freq": 1,
            "attention_bias": False, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        {
            **_LATENT_KEYS, "expert_gating_func": 2, "attention.indexer.head_count": 2,
            "attention.indexer.key_length": 16, "attention.indexer.top_k": 4,
        },
        (*_MERGED, *_ABSORBED, ("e_score_correction_bias", "e_score_correction.bias")),
    ),
    *(
        Case(
            "mistral4",
            {
                "model_type": "mistral4", **_LATENT, **_ROUTED,
                "rope_parameters": {
                    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32,
                    "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
                },
            },
            {
                **_LATENT_KEYS, **YARN, "rope.scaling.yarn_log_multiplier": 0.1, "attention.temperature_scale": 0.1,
                "attention.temperature_length": 32,
            },
            (*_MERGED, *_ABSORBED), label=label, joined=joined,
        )
        for label, joined in (("mistral4", None), ("mistral4, gates with the rest", GATE_UP))
    ),
]  # fmt: skip
