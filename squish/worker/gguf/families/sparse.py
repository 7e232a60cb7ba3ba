"""Decoders with experts whose layers differ among each other, or that name what they have in a way of their own."""

from __future__ import annotations

from squish.worker.gguf.families.dense import rotated
from squish.worker.gguf.families.moe import ABSORBED, LATENT, ROUTED, ROUTED_KNOWN, latent_scaling
from squish.worker.gguf.family import (
    SIGMOID,
    UNPAIR_KEYS,
    UNPAIR_QUERIES,
    Config,
    Destination,
    Family,
    Setting,
    Table,
    always,
    anywhere,
    count,
    cut,
    flag,
    has,
    like,
    nothing,
    number,
    of_kind,
    windowed,
)
from squish.worker.gguf.keys import ModelKeys


def _layers_with(tensor: str, keys: ModelKeys, config: Config) -> list[bool]:
    return [f"blk.{layer}.{tensor}" in keys.header.tensors for layer in range(config["num_hidden_layers"])]


# ---- Ling

_LING: Table = {
    "attn_output": "attention.dense",
    "attn_q_norm": "attention.query_layernorm",
    "attn_k_norm": "attention.key_layernorm",
    "ffn_gate_inp": "mlp.gate.gate_proj",
    "exp_probs_b": Destination("=mlp.gate.expert_bias"),
}
_LING_TOP = {"token_embd": "model.word_embeddings"}


def _shared_rows(keys: ModelKeys, config: Config) -> int | None:
    """Of one shared expert: the file has all of them as one."""
    found = next((info for name, info in keys.header.tensors.items() if "ffn_up_shexp" in name), None)
    return None if found is None else found.shape[0] // max(keys.count("expert_shared_count") or 1, 1)


def _ling(score: str, bias: str) -> dict[str, Setting]:
    return {
        "num_experts": count("expert_count"),
        "num_experts_per_tok": count("expert_used_count"),
        "num_shared_experts": count("expert_shared_count", 0),
        "moe_intermediate_size": count("expert_feed_forward_length"),
        "moe_shared_expert_intermediate_size": _shared_rows,
        "first_k_dense_replace": count("leading_dense_block_count", 0),
        "norm_topk_prob": flag("expert_weights_norm", True),
        "routed_scaling_factor": number("expert_weights_scale", 1.0),
        "n_group": count("expert_group_count", 1),
        "topk_group": count("expert_group_used_count", 1),
        "moe_router_enable_expert_bias": anywhere("exp_probs_b.bias"),
        "score_function": lambda keys, config: {None: score, SIGMOID: "sigmoid"}.get(
            keys.count("expert_gating_func"), "softmax"
        ),
        "use_qk_norm": has("blk.0.attn_q_norm.weight"),
        "use_qkv_bias": anywhere(bias),
        "use_bias": has("blk.0.attn_output.bias"),
        "partial_rotary_factor": rotated,
    }


# ---- layers with windows that have heads of their own


def _window_heads(keys: ModelKeys, config: Config) -> dict[str, object] | None:
    if "sliding_attention" not in config["layer_types"]:
        return None
    heads, shared = (
        of_kind("sliding_attention", f"attention.{name}")(keys, config) for name in ("head_count", "head_count_kv")
    )
    return {"num_attention_heads": heads, "num_attention_groups": shared}


def _of_each_kind(full: object, sliding: object, config: Config) -> list[object]:
    return [sliding if kind == "sliding_attention" else full for kind in config["layer_types"]]


def _bases(keys: ModelKeys, config: Config) -> list[object]:
    return _of_each_kind(config["rope_theta"], keys.number("rope.freq_base_swa") or config["rope_theta"], config)


def _listed(name: str) -> Setting:
    return lambda keys, config: keys.floats(name)


def _sunk(kind: str) -> Setting:
    """Whether the layers of a kind have sinks."""

    def found(keys: ModelKeys, config: Config) -> bool:
        have = _layers_with("attn_sinks.weight", keys, config)
        return any(each for each, own in zip(have, config["layer_types"], strict=True) if own == kind)

    return found


# ---- latent attention


def _indexed_rope(keys: ModelKeys, config: Config) -> dict[str, object]:
    return {"rope_type": "default", **(config.get("rope_scaling") or {}), "rope_theta": config["rope_theta"]}


def _tempered_rope(keys: ModelKeys, config: Config) -> dict[str, object]:
    found = latent_scaling(keys, config) or {"rope_type": "default"}
    length = keys.count("attention.temperature_length") or config["max_position_embeddings"]
    beta = keys.number("attention.temperature_scale") or 0.0
    return {
        "original_max_position_embeddings": length, **found, "rope_theta": config["rope_theta"],
        "llama_4_scaling_beta": beta,
    }  # fmt: skip


FAMILIES = {
    "hunyuan-moe": Family(
        "hunyuan",
        tensors={
            "attn_q_norm": "self_attn.query_layernorm",
            "attn_k_norm": "self_attn.key_layernorm",
            "ffn_gate_inp": "mlp.gate.wg",
            "ffn_gate_shexp": "mlp.shared_mlp.gate_proj",
            "ffn_up_shexp": "mlp.shared_mlp.up_proj",
            "ffn_down_shexp": "mlp.shared_mlp.down_proj",
        },
        config={
            "num_experts": count("expert_count"),
            "moe_topk": count("expert_used_count"),
            "num_shared_expert": count("expert_shared_count", 0),
            "use_mixed_mlp_moe": lambda keys, config: bool(config["num_shared_expert"]),
            "moe_intermediate_size": count("expert_feed_forward_length"),
            "attention_bias": has("blk.0.attn_q.bias"),
            "use_qk_norm": has("blk.0.attn_q_norm.weight"),
            "use_cla": always(False),
            "cla_share_factor": always(1),
            # The file's base is stretched already.
            "rope_scaling": always({"type": "dynamic", "alpha": 1.0, "factor": 1.0}),
        },
        known=("expert_shared_feed_forward_length", "rope.scaling.original_context_length"),
    ),
    "bailingmoe": Family(
        "bailing_moe",
        tensors={
            **_LING,
            "attn_q": Destination("attention.query_key_value", UNPAIR_QUERIES, join=0),
            "attn_k": Destination("attention.query_key_value", UNPAIR_KEYS, join=1),
            "attn_v": Destination("attention.query_key_value", join=2),
        },
        top=_LING_TOP,
        config=_ling("softmax", "attn_q.bias"),
        known=ROUTED_KNOWN,
    ),
    "bailingmoe2": Family(
        "bailing_moe",
        tensors={**_LING, "attn_qkv": "attention.query_key_value"},
        top=_LING_TOP,
        config=_ling("sigmoid", "attn_qkv.bias"),
        known=ROUTED_KNOWN,
    ),
    "step35": Family(
        "step3p5",
        scaled_part=0.5,
        tensors={
            "attn_gate": "self_attn.g_proj",
            "ffn_gate_inp": "mlp.gate.gate",
            "exp_probs_b": Destination("=mlp.gate.router_bias"),
            "ffn_gate_shexp": "mlp.share_expert.gate_proj",
            "ffn_up_shexp": "mlp.share_expert.up_proj",
            "ffn_down_shexp": "mlp.share_expert.down_proj",
        },
        config={
            "layer_types": windowed(),
            "sliding_window": count("attention.sliding_window"),
            "num_attention_heads": of_kind("full_attention", "attention.head_count"),
            "num_attention_groups": of_kind("full_attention", "attention.head_count_kv"),
            "num_key_value_heads": nothing,
            "attention_other_setting": _window_heads,
            "rope_theta": _bases,
            "yarn_only_types": always(["full_attention"]),
            # The whole head in a window, half of it elsewhere.
            "partial_rotary_factors": lambda keys, config: _of_each_kind(0.5, 1.0, config),
            "partial_rotary_factor": nothing,
            "use_head_wise_attn_gate": has("blk.0.attn_gate.weight"),
            "moe_num_experts": count("expert_count"),
            "moe_top_k": count("expert_used_count"),
            "moe_intermediate_size": count("expert_feed_forward_length"),
            "share_expert_dim": count("expert_shared_feed_forward_length"),
            "moe_router_scaling_factor": number("expert_weights_scale", 1.0),
            "norm_expert_weight": flag("expert_weights_norm", True),
            "moe_layers_enum": lambda keys, config: ",".join(
                str(layer) for layer, sparse in enumerate(_layers_with("ffn_gate_inp.weight", keys, config)) if sparse
            ),
            "swiglu_limits": _listed("swiglu_clamp_exp"),
            "swiglu_limits_shared": _listed("swiglu_clamp_shexp"),
            "tie_word_embeddings": always(False),
        },
        known=("expert_gating_func", "leading_dense_block_count", "moe_every_n_layers", "rope.dimension_count_swa"),
    ),
    "mimo2": Family(
        "mimo_v2_flash",
        tensors={"attn_sinks": Destination("=self_attn.attention_sink_bias")},
        config={
            **ROUTED,
            "layer_types": windowed(),
            "hybrid_layer_pattern": lambda keys, config: _of_each_kind(0, 1, config),
            "moe_layer_freq": lambda keys, config: [int(e) for e in _layers_with("ffn_gate_inp.weight", keys, config)],
            "n_shared_experts": lambda keys, config: keys.count("expert_shared_count") or None,
            "first_k_dense_replace": nothing,
            "sliding_window_size": count("attention.sliding_window"),
            "num_key_value_heads": of_kind("full_attention", "attention.head_count_kv"),
            "swa_num_key_value_heads": of_kind("sliding_attention", "attention.head_count_kv"),
            "swa_num_attention_heads": like("num_attention_heads"),
            "swa_head_dim": like("head_dim"),
            "v_head_dim": count("attention.value_length"),
            "swa_v_head_dim": like("v_head_dim"),
            "add_swa_attention_sink_bias": _sunk("sliding_attention"),
            "add_full_attention_sink_bias": _sunk("full_attention"),
            "attention_value_scale": number("attention.value_scale"),
            "swa_rope_theta": number("rope.freq_base_swa", 10_000.0),
            "partial_rotary_factor": rotated,
            "layernorm_epsilon": like("rms_norm_eps"),
            "topk_method": always("noaux_tc"),
            "scoring_func": always("sigmoid"),
            "tie_word_embeddings": always(False),
        },
        known=("expert_gating_func", "leading_dense_block_count", "rope.dimension_count_swa"),
    ),
    "glm-dsa": Family(
        "glm_moe_dsa",
        tensors={
            **ABSORBED,
            "indexer.k_norm": "self_attn.indexer.k_norm",
            "indexer.proj": "self_attn.indexer.weights_proj",
            "indexer.attn_k": "self_attn.indexer.wk",
            "indexer.attn_q_b": "self_attn.indexer.wq_b",
        },
        config={
            "rope_parameters": _indexed_rope,
            **LATENT,
            **ROUTED,
            "rope_scaling": nothing,
            "index_n_heads": count("attention.indexer.head_count"),
            "index_head_dim": count("attention.indexer.key_length"),
            "index_topk": count("attention.indexer.top_k"),
            "indexer_rope_interleave": always(True),
            "attention_bias": has("blk.0.attn_q_a.bias"),
            "moe_layer_freq": always(1),
            "topk_method": always("noaux_tc"),
            "scoring_func": always("sigmoid"),
            "tie_word_embeddings": always(False),
        },
        known=ROUTED_KNOWN,
    ),
    "mistral4": Family(
        "mistral4",
        tensors={
            **ABSORBED,
            "ffn_gate_up_exps": cut(
                lambda config: {
                    f"mlp.switch_mlp.{half}_proj": config["moe_intermediate_size"] for half in ("gate", "up")
                }
            ),
        },
        config={"rope_parameters": _tempered_rope, **LATENT, **ROUTED, "rope_scaling": nothing},
        known=ROUTED_KNOWN,
    ),
}
