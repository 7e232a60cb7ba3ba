"""Families without experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.worker.gguf.cases import (
    GATE_UP,
    GRANITE,
    HEAD,
    HEADS,
    INTERNLM,
    LAYER_NORM,
    LONG_FACTORS,
    ONE_ADDED,
    PAIRED,
    YARN,
    Case,
    Floats,
)
from tests.worker.gguf.writer import Value


def gemma_experts(name: str, array: Floats, config: Mapping[str, Any]) -> dict[str, Floats]:
    """Gates and the rest in one tensor, which is written once; scales under the names of what they scale."""
    for end, own in (("router.scale", "ffn_gate_inp.scale"), ("router.per_expert_scale", "ffn_down_exps.scale")):
        if name.endswith(end):
            return {"=" + name.replace(end, own): array}
    if "switch_glu" not in name:
        return {name: array}
    kind = name.rpartition("switch_glu.")[2]
    part = {"gate_proj.weight": "ffn_gate_exps", "up_proj.weight": "ffn_up_exps", "down_proj.weight": "ffn_down_exps"}[
        kind
    ]
    return {"=" + name.replace(f"experts.switch_glu.{kind}", f"{part}.weight"): array}


_LOCAL, _FULL = ["sliding_attention"] * 2, "full_attention"

_GEMMA_4: tuple[tuple[str, dict[str, Any], dict[str, Value], Any], ...] = (
    (
        "gemma4", {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 264},
        {"embedding_length_per_layer_input": 8}, None,
    ),
    (
        "gemma4 with experts",
        {
            "hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2,
            "moe_intermediate_size": 32, "attention_k_eq_v": True, "num_global_key_value_heads": 1,
        },
        {
            "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32,
            "attention.head_count_kv": [2, 1],
        },
        gemma_experts,
    ),
)  # fmt: skip

DENSE = [
    Case("llama", {"model_type": "llama"}, changes=PAIRED),
    Case(
        "llama", {"model_type": "llama", "attention_bias": True, "tie_word_embeddings": False}, changes=PAIRED,
        label="llama with biases",
    ),
    Case("qwen2", {"model_type": "qwen2"}),
    Case("qwen3", {"model_type": "qwen3"}),
    Case("gemma", {"model_type": "gemma"}, changes=ONE_ADDED, norms=0.0),
    Case(
        "gemma2",
        {
            "model_type": "gemma2", "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": HEAD,
        },
        {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, "attention.sliding_window": 4096},
        changes=ONE_ADDED, norms=0.0,
    ),
    Case(
        "gemma3",
        {
            "model_type": "gemma3_text", "query_pre_attn_scalar": HEAD, "sliding_window": 4, "num_hidden_layers": 6,
            "sliding_window_pattern": 6, "rope_local_base_freq": 10_000.0, "rope_theta": 1_000_000.0,
        },
        {"attention.sliding_window": 4}, changes=ONE_ADDED, norms=0.0,
    ),
    Case(
        "gemma3",
        {
            "model_type": "gemma3_text", "query_pre_attn_scalar": HEAD, "sliding_window": 4, "num_hidden_layers": 6,
            "sliding_window_pattern": 6, "rope_local_base_freq": 10_000.0, "rope_theta": 1_000_000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        {"attention.sliding_window": 4, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
        changes=ONE_ADDED, norms=0.0, label="gemma3 stretched",
    ),
    Case(
        "gemma3n",
        {
            "model_type": "gemma3n_text", "num_hidden_layers": 5, "num_kv_shared_layers": 2, "sliding_window": 4,
            "vocab_size_per_layer_input": 264, "rope_local_base_freq": 1e4, "rope_theta": 1e6,
            "final_logit_softcapping": 3.0,
            "layer_types": [*_LOCAL, _FULL, _LOCAL[0], _FULL],
            "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0], "hidden_size_per_layer_input": 8,
            "altup_num_inputs": 4, "altup_coef_clip": 120.0, "altup_correct_scale": True, "altup_active_idx": 0,
            "laurel_rank": 8, "intermediate_size": [96] * 5,
        },
        {
            "attention.sliding_window": 4, "attention.sliding_window_pattern": [True, True, False, True, False],
            "attention.shared_kv_layers": 2, "final_logit_softcapping": 3.0, "embedding_length_per_layer_input": 8,
            "altup.num_inputs": 4, "altup.active_idx": 0, "feed_forward_length": 96,
            "activation_sparsity_scale": [1.6448536, 1.6448536, float("-inf"), float("-inf"), float("-inf")],
        },
        (("model.language_model.", "model."), ("correct_output_scale", "correct_output_scale.weight")),
        stacked=("altup_projections", "altup_unembed_projections"), wrapped="gemma3n",
    ),
    *(
        Case(
            "gemma4",
            {
                "model_type": "gemma4_text", "global_head_dim": 32, "num_kv_shared_layers": 0, "sliding_window": 4,
                "layer_types": ["sliding_attention", "full_attention"], "final_logit_softcapping": 3.0,
                "rope_parameters": {
                    "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
                "use_double_wide_mlp": False, **own,
            },
            {
                "attention.key_length": 32, "attention.key_length_swa": 16, "attention.value_length": 32,
                "attention.value_length_swa": 16, "rope.dimension_count": 32, "rope.dimension_count_swa": 16,
                "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4, "attention.sliding_window": 4,
                "attention.sliding_window_pattern": [True, False], "final_logit_softcapping": 3.0,
                "attention.shared_kv_layers": 0, **settings,
            },
            (("layer_scalar", "layer_scalar.weight"),), label=label, split=split, joined=GATE_UP,
        )
        for label, own, settings, split in _GEMMA_4
    ),
    Case("internlm2", {"model_type": "llama"}, changes=PAIRED, names=INTERNLM),
    Case(
        "mistral3",
        {
            "model_type": "ministral3",
            "rope_parameters": {
                "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32,
                "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
            },
        },
        {
            **YARN, "rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0,
            "rope.scaling.yarn_log_multiplier": 1.0, "attention.temperature_scale": 0.1,
        },
        changes=PAIRED,
    ),
    Case(
        "llama",
        {
            "model_type": "llama",
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        },
        YARN, changes=PAIRED, label="llama with yarn",
    ),
    Case("smollm3", {"model_type": "smollm3", "num_hidden_layers": 4}, changes=PAIRED),
    Case("qwen2vl", {"model_type": "qwen2"}, {"rope.dimension_sections": [2, 3, 3, 0]}),
    Case("qwen3vl", {"model_type": "qwen3"}, {"rope.dimension_sections": [2, 3, 3, 0], "n_deepstack_layers": 3}),
    Case("seed_oss", {"model_type": "seed_oss", "attention_bias": True}),
    Case(
        "granite",
        {
            "model_type": "granite", "attention_multiplier": 0.2, "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5, "logits_scaling": 2.0, "attention_bias": False, "mlp_bias": False,
        },
        GRANITE, changes=PAIRED,
    ),
    Case(
        "minicpm",
        {
            "model_type": "minicpm", "dim_model_base": 16, "scale_depth": 1.5, "scale_emb": 3.0,
            "tie_word_embeddings": False,
        },
        {"embedding_scale": 3.0, "residual_scale": 1.5 / 2**0.5, "logit_scale": 4.0}, changes=PAIRED,
    ),
    Case("olmo2", {"model_type": "olmo2"}),
    Case(
        "olmo2",
        {
            "model_type": "olmo3", "sliding_window": 4, "num_hidden_layers": 4,
            "layer_types": [*["sliding_attention"] * 3, "full_attention"],
        },
        {"attention.sliding_window": 4, "attention.sliding_window_pattern": [True, True, True, False]}, label="olmo3",
    ),
    Case(
        "command-r", {"model_type": "cohere", "logit_scale": 0.5, "use_qk_norm": True, "layer_norm_eps": 1e-5},
        {**LAYER_NORM, "logit_scale": 0.5},
    ),
    Case(
        "cohere2",
        {
            "model_type": "cohere2", "logit_scale": 0.5, "sliding_window": 4, "num_hidden_layers": 4,
            "layer_norm_eps": 1e-5,
        },
        {**LAYER_NORM, "logit_scale": 0.5, "attention.sliding_window": 4},
    ),
    Case(
        "phi2",
        {
            "model_type": "phi", "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5, "tie_word_embeddings": False,
            "num_key_value_heads": HEADS,
        },
        {**LAYER_NORM, "rope.dimension_count": 8},
    ),
    Case("phi3", {"model_type": "phi3"}, {"attention.sliding_window": 64, "rope.dimension_count": 16}),
    Case(
        "phi3",
        {
            "model_type": "phi3",
            "rope_scaling": {
                "rope_type": "longrope", "original_max_position_embeddings": 32,
                "long_factor": LONG_FACTORS, "short_factor": [1.0] * 8,
            },
        },
        {"rope.scaling.original_context_length": 32, "rope.scaling.attn_factor": 1.1832159566}, label="phi3 long",
    ),
    Case(
        "glm4",
        {"model_type": "glm4", "attention_bias": True, "partial_rotary_factor": 0.5, "tie_word_embeddings": False},
        {"rope.dimension_count": 8},
    ),
    Case("starcoder2", {"model_type": "starcoder2", "norm_epsilon": 1e-5}, LAYER_NORM),
    Case(
        "stablelm",
        {
            "model_type": "stablelm", "layer_norm_eps": 1e-5, "use_qkv_bias": True, "partial_rotary_factor": 0.25,
            "tie_word_embeddings": False,
        },
        {**LAYER_NORM, "rope.dimension_count": 4},
    ),
    Case(
        "stablelm",
        {
            "model_type": "stablelm", "layer_norm_eps": 1e-5, "use_qkv_bias": False, "partial_rotary_factor": 0.25,
            "tie_word_embeddings": False, "qk_layernorm": True, "use_parallel_residual": True,
        },
        {**LAYER_NORM, "rope.dimension_count": 4, "use_parallel_residual": True}, label="stablelm with norms of heads",
        stacked=("q_layernorm", "k_layernorm"),
    ),
    Case("exaone", {"model_type": "exaone", "num_layers": 2, "layer_norm_epsilon": 1e-5}),
    Case(
        "exaone4",
        {
            "model_type": "exaone4", "sliding_window": 4, "sliding_window_pattern": "LLLG", "num_hidden_layers": 4,
            "rope_scaling": None,
        },
        {"attention.sliding_window": 4, "attention.sliding_window_pattern": [True, True, True, False]},
    ),
    Case(
        "exaone4",
        {"model_type": "exaone4", "sliding_window": None, "sliding_window_pattern": None, "rope_scaling": None},
        label="exaone4 without windows",
    ),
    Case("ernie4_5", {"model_type": "ernie4_5", "use_bias": False}),
    Case("hunyuan-dense", {"model_type": "hunyuan_v1_dense"}),
    Case(
        "nemotron",
        {
            "model_type": "nemotron", "hidden_act": "relu2", "norm_eps": 1e-5, "partial_rotary_factor": 0.5,
            "tie_word_embeddings": False,
        },
        {**LAYER_NORM, "rope.dimension_count": 8}, changes=ONE_ADDED, norms=0.0,
    ),
]  # fmt: skip
