"""Decoders with experts."""

from __future__ import annotations

from squish.worker.gguf.families.basis import PAIRED
from squish.worker.gguf.families.dense import GRANITE_SETTINGS, rotated
from squish.worker.gguf.family import (
    AS_ROW,
    ROWS,
    SWAPPED,
    Config,
    Destination,
    Family,
    Setting,
    Table,
    always,
    count,
    flag,
    has,
    like,
    nothing,
    number,
    windowed,
)
from squish.worker.gguf.keys import ModelKeys

SPARSE: Table = {
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.switch_mlp.gate_proj",
    "ffn_up_exps": "block_sparse_moe.switch_mlp.up_proj",
    "ffn_down_exps": "block_sparse_moe.switch_mlp.down_proj",
}
QWEN_SHARED: Table = {
    "ffn_gate_inp_shexp": Destination("mlp.shared_expert_gate", AS_ROW),
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_POST_NORM: Table = {"ffn_norm": None, "post_attention_norm": "post_attention_layernorm"}
_BIASED = has("blk.0.attn_q.bias")
_USED = {"num_experts_per_tok": count("expert_used_count")}
LOCAL: dict[str, Setting] = {"num_local_experts": count("expert_count"), **_USED}
EXPERTS: dict[str, Setting] = {
    "num_experts": count("expert_count"),
    "moe_intermediate_size": count("expert_feed_forward_length"),
    **_USED,
}
ROUTED: dict[str, Setting] = {
    "n_routed_experts": count("expert_count"),
    "n_shared_experts": count("expert_shared_count"),
    "moe_intermediate_size": count("expert_feed_forward_length"),
    "first_k_dense_replace": count("leading_dense_block_count", 0),
    "routed_scaling_factor": number("expert_weights_scale", 1.0),
    "n_group": count("expert_group_count", 1),
    "topk_group": count("expert_group_used_count", 1),
    "norm_topk_prob": flag("expert_weights_norm", True),
    **_USED,
}
ROUTED_KNOWN = ("expert_gating_func", "expert_shared_feed_forward_length", "expert_weights_norm")
_UNEVEN: dict[str, Setting] = {**ROUTED, "norm_topk_prob": flag("expert_weights_norm", False)}


def _alternating(keys: ModelKeys, config: Config) -> list[str]:
    kinds = ("sliding_attention", "full_attention")
    return [kinds[layer % 2] for layer in range(config["num_hidden_layers"])]


def _scales(keys: ModelKeys, config: Config) -> dict[str, object] | None:
    """Long factors with the numbers that the code wants for both of their ranges."""
    scaling = config.get("rope_scaling")
    factor = keys.number("rope.scaling.attn_factor") or 1.0
    return None if scaling is None else {**scaling, "short_mscale": factor, "long_mscale": factor}


# ---- latent attention


def _nope(keys: ModelKeys, config: Config) -> int:
    whole = keys.count("attention.key_length_mla") or keys.size("attention.key_length")
    return whole - keys.size("rope.dimension_count")


def _value(keys: ModelKeys, config: Config) -> int:
    return keys.count("attention.value_length_mla") or keys.size("attention.value_length")


def latent_scaling(keys: ModelKeys, config: Config) -> dict[str, object] | None:
    scaling = config.get("rope_scaling")
    multiplier = keys.number("rope.scaling.yarn_log_multiplier")
    if scaling is None or multiplier is None:
        return scaling if isinstance(scaling, dict) else None
    scale = round(10 * multiplier, 6)
    return {**scaling, "mscale": scale, "mscale_all_dim": scale}


LATENT_HEADS: dict[str, Setting] = {
    "kv_lora_rank": count("attention.kv_lora_rank"),
    "qk_rope_head_dim": count("rope.dimension_count"),
    "qk_nope_head_dim": _nope,
    "v_head_dim": _value,
}
LATENT: dict[str, Setting] = {
    **LATENT_HEADS,
    "q_lora_rank": count("attention.q_lora_rank"),
    "num_key_value_heads": like("num_attention_heads"),
    "rope_scaling": latent_scaling,
    "partial_rotary_factor": nothing,
    "head_dim": nothing,
}
LATENT_NAMES: Table = {
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
}
ABSORBED: Table = {**LATENT_NAMES, "attn_k_b": "self_attn.embed_q", "attn_v_b": "self_attn.unembed_out"}
_DEEPSEEK_2 = Family(
    "deepseek_v2",
    tensors={
        **LATENT_NAMES,
        "attn_kv_b": "self_attn.kv_b_proj",
        "attn_k_b": Destination("self_attn.kv_b_proj", SWAPPED, join=0, after=ROWS),
        "attn_v_b": Destination("self_attn.kv_b_proj", join=1, after=ROWS),
    },
    config={
        **LATENT,
        **_UNEVEN,
        "topk_method": lambda keys, config: "group_limited_greedy" if config["n_group"] > 1 else "greedy",
    },
    known=ROUTED_KNOWN,
)
DEEPSEEK_3 = Family(
    "deepseek_v3",
    tensors=ABSORBED,
    config={**LATENT, **ROUTED},
    known=ROUTED_KNOWN,
)

MIXTRAL = Family("mixtral", tensors={**PAIRED, **SPARSE}, config=LOCAL)


FAMILIES = {
    "deepseek2": _DEEPSEEK_2,
    "deepseek": Family("deepseek", tensors=PAIRED, config=_UNEVEN, known=ROUTED_KNOWN),
    "phimoe": Family("phimoe", tensors=SPARSE, config={**LOCAL, "rope_scaling": _scales}),
    "qwen2moe": Family(
        "qwen2_moe",
        tensors=QWEN_SHARED,
        config={**EXPERTS, "shared_expert_intermediate_size": count("expert_shared_feed_forward_length")},
    ),
    **dict.fromkeys(
        ("qwen3moe", "qwen3vlmoe"),
        Family(
            "qwen3_moe",
            config={
                **EXPERTS,
                "decoder_sparse_step": always(1),
                "mlp_only_layers": always([]),
                "norm_topk_prob": flag("expert_weights_norm", True),
            },
            known=("n_deepstack_layers",),
        ),
    ),
    "granitemoe": Family(
        "granitemoe",
        tensors={**PAIRED, **SPARSE, "ffn_gate_inp": "block_sparse_moe.router.layer"},
        config={**GRANITE_SETTINGS, **LOCAL},
    ),
    "olmoe": Family("olmoe", config={**EXPERTS, "moe_intermediate_size": nothing}),
    "glm4moe": Family(
        "glm4_moe",
        tensors=_POST_NORM,
        config={
            **ROUTED,
            "use_qk_norm": has("blk.0.attn_q_norm.weight"),
            "attention_bias": _BIASED,
            "rope_scaling": like("rope_scaling"),
            "partial_rotary_factor": rotated,
        },
        known=ROUTED_KNOWN,
    ),
    "dots1": Family(
        "dots1",
        tensors={
            "ffn_gate_exps": "mlp.experts.gate_proj",
            "ffn_up_exps": "mlp.experts.up_proj",
            "ffn_down_exps": "mlp.experts.down_proj",
        },
        config=ROUTED,
        known=ROUTED_KNOWN,
    ),
    "gpt-oss": Family(
        "gpt_oss",
        tensors={
            **_POST_NORM,
            "attn_sinks": Destination("=self_attn.sinks"),
            "ffn_gate_inp": "mlp.router",
            "ffn_gate_exps": "mlp.experts.gate_proj",
            "ffn_up_exps": "mlp.experts.up_proj",
            "ffn_down_exps": "mlp.experts.down_proj",
        },
        config={
            **LOCAL,
            "intermediate_size": count("expert_feed_forward_length"),
            "sliding_window": count("attention.sliding_window", 128),
            "layer_types": _alternating,
        },
    ),
    "ernie4_5-moe": Family(
        "ernie4_5_moe",
        config={
            "use_bias": _BIASED,
            "moe_num_experts": count("expert_count"),
            "moe_k": count("expert_used_count"),
            "moe_intermediate_size": count("expert_feed_forward_length"),
            "moe_layer_start_index": count("leading_dense_block_count", 0),
            "moe_layer_interval": count("interleave_moe_layer_step", 1),
            "moe_num_shared_experts": count("expert_shared_count", 0),
        },
        known=ROUTED_KNOWN,
        skipped=("exp_probs_b",),  # mlx-lm chooses the experts without it
    ),
    "minimax-m2": Family(
        "minimax",
        tensors={**SPARSE, "exp_probs_b": Destination("=block_sparse_moe.e_score_correction_bias")},
        config={
            **LOCAL,
            "intermediate_size": count("expert_feed_forward_length"),
            "scoring_func": always("sigmoid"),
            "use_qk_norm": has("blk.0.attn_q_norm.weight"),
            "rotary_dim": count("rope.dimension_count"),
            "shared_intermediate_size": always(0),
            "partial_rotary_factor": nothing,
        },
        known=ROUTED_KNOWN,
    ),
    "exaone-moe": Family(
        "exaone_moe",
        config={
            **EXPERTS,
            "num_shared_experts": count("expert_shared_count", 0),
            "norm_topk_prob": flag("expert_weights_norm", True),
            "routed_scaling_factor": number("expert_weights_scale", 1.0),
            "n_group": count("expert_group_count", 1),
            "topk_group": count("expert_group_used_count", 1),
            "sliding_window": count("attention.sliding_window"),
            "layer_types": windowed(4),
            "is_moe_layer": lambda keys, config: [
                layer >= (keys.count("leading_dense_block_count") or 0) for layer in range(config["num_hidden_layers"])
            ],
        },
        known=ROUTED_KNOWN,
    ),
    "afmoe": Family(
        "afmoe",
        tensors={
            "attn_gate": "self_attn.gate_proj",
            "ffn_norm": "pre_mlp_layernorm",
            "post_attention_norm": "post_attention_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
            "ffn_gate_inp": "mlp.router.gate",
            "ffn_gate_exps": "mlp.experts.gate_proj",
            "ffn_up_exps": "mlp.experts.up_proj",
            "ffn_down_exps": "mlp.experts.down_proj",
            "exp_probs_b": Destination("=mlp.expert_bias"),
        },
        config={
            **EXPERTS,
            "num_shared_experts": count("expert_shared_count", 0),
            "num_dense_layers": count("leading_dense_block_count", 0),
            "route_norm": flag("expert_weights_norm", True),
            "route_scale": number("expert_weights_scale", 1.0),
            "score_func": always("sigmoid"),
            "mup_enabled": always(True),
            "n_group": count("expert_group_count", 1),
            "topk_group": count("expert_group_used_count", 1),
            "sliding_window": count("attention.sliding_window"),
            "layer_types": windowed(4),
        },
        known=ROUTED_KNOWN,
    ),
    "llama4": Family(
        "llama4",
        wrapped=True,
        layers="language_model.model.layers",
        tensors={
            "ffn_gate": "feed_forward.gate_proj",
            "ffn_up": "feed_forward.up_proj",
            "ffn_down": "feed_forward.down_proj",
            "ffn_gate_inp": "feed_forward.router",
            "ffn_gate_exps": "feed_forward.experts.gate_proj",
            "ffn_up_exps": "feed_forward.experts.up_proj",
            "ffn_down_exps": "feed_forward.experts.down_proj",
            "ffn_gate_shexp": "feed_forward.shared_expert.gate_proj",
            "ffn_up_shexp": "feed_forward.shared_expert.up_proj",
            "ffn_down_shexp": "feed_forward.shared_expert.down_proj",
        },
        top={
            "token_embd": "language_model.model.embed_tokens",
            "output_norm": "language_model.model.norm",
            "output": "language_model.lm_head",
        },
        config={
            **LOCAL,
            "intermediate_size_mlp": like("intermediate_size"),
            "intermediate_size": count("expert_feed_forward_length"),
            "interleave_moe_layer_step": count("interleave_moe_layer_step", 1),
            "attention_chunk_size": count("attention.sliding_window", 8192),
            "attention_bias": always(False),
            "use_qk_norm": lambda keys, config: keys.count("expert_count") != 128,
            "attn_temperature_tuning": always(4),
            "rope_scaling": like("rope_scaling"),
        },
        known=(*ROUTED_KNOWN, "expert_shared_count"),
    ),
}
