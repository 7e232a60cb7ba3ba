"""Families with layers that keep a state in place of keys and values: convolutions, state spaces, linear attention."""

from __future__ import annotations

import mlx.core as mx

from squish.worker.gguf.families.basis import PAIRED
from squish.worker.gguf.families.dense import GRANITE_SETTINGS
from squish.worker.gguf.families.moe import EXPERTS, LOCAL, QWEN_SHARED, SPARSE
from squish.worker.gguf.family import (
    CHANNELS,
    FLAT,
    LOG_NEGATED,
    Config,
    Destination,
    Family,
    Setting,
    Step,
    Table,
    always,
    attending,
    count,
    flag,
    has,
    like,
    nothing,
)
from squish.worker.gguf.keys import ModelKeys

# ---- short convolutions

_CONVOLUTIONS: Table = {
    "attn_norm": "operator_norm",
    "ffn_norm": "ffn_norm",
    "attn_output": "self_attn.out_proj",
    "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm",
    "shortconv.conv": Destination("conv.conv", CHANNELS),
    "shortconv.in_proj": "conv.in_proj",
    "shortconv.out_proj": "conv.out_proj",
}
_LFM_TOP: Table = {"output_norm": None, "token_embd_norm": "model.embedding_norm"}


_LFM: dict[str, Setting] = {
    "norm_eps": like("rms_norm_eps"),
    "conv_bias": always(False),
    "conv_L_cache": count("shortconv.l_cache"),
    "layer_types": attending("full_attention", "conv"),
}

# ---- state spaces


CONVOLUTION = Step(CHANNELS.run, biases=False)


def headed_states(module: str) -> Table:
    """State spaces with a step for each head: Mamba's second kind."""
    return {
        "ssm_in": f"{module}.in_proj",
        "ssm_conv1d": Destination(f"{module}.conv1d", CONVOLUTION),
        "ssm_dt": Destination(f"={module}.dt_bias"),
        "ssm_a": Destination(f"={module}.A_log", LOG_NEGATED),
        "ssm_d": Destination(f"={module}.D", FLAT),
        "ssm_norm": Destination(f"{module}.norm", FLAT),
        "ssm_out": f"{module}.out_proj",
    }


_MAMBA = headed_states("mamba")


def state_head(keys: ModelKeys, config: Config) -> int:
    return keys.size("ssm.inner_size") // keys.size("ssm.time_step_rank")


_STATES: dict[str, Setting] = {
    "mamba_d_conv": count("ssm.conv_kernel"),
    "mamba_d_state": count("ssm.state_size"),
    "mamba_n_heads": count("ssm.time_step_rank"),
    "mamba_n_groups": count("ssm.group_count"),
    "mamba_d_head": state_head,
    "mamba_conv_bias": has("blk.0.ssm_conv1d.bias"),
}
# The file's weights are multiplied already.
_MULTIPLIED = {
    f"{name}_multiplier": always(1.0)
    for name in ("attention_in", "attention_out", "embedding", "key", "lm_head", "ssm_in", "ssm_out")
}


# ---- linear attention


def _key_rows(config: Config) -> int:
    return int(config["linear_num_key_heads"] * config["linear_key_head_dim"])


def _by_head(array: mx.array, config: Config) -> mx.array:
    """Queries, keys, values and gates, each of all heads, become those of each key head."""
    heads, rows = config["linear_num_key_heads"], _key_rows(config)
    values = (array.shape[0] - 2 * rows) // 2
    parts = mx.split(array, [rows, 2 * rows, 2 * rows + values])
    split = [part.reshape(heads, -1, *array.shape[1:]) for part in parts]
    return mx.concatenate(split, axis=1).reshape(array.shape)


def _grouped(array: mx.array, config: Config) -> mx.array:
    """Rows of value heads: the file has the first of each key head, then the second of each; MLX all of a key head."""
    heads = config["linear_num_key_heads"]
    each = config["linear_num_value_heads"] // heads
    return array.reshape(each, heads, -1, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)


def _grouped_values(array: mx.array, config: Config) -> mx.array:
    """The same for the rows behind those of queries and keys."""
    ends = 2 * _key_rows(config)
    return mx.concatenate([array[:ends], _grouped(array[ends:], config)])


def _grouped_columns(array: mx.array, config: Config) -> mx.array:
    heads = config["linear_num_key_heads"]
    each = config["linear_num_value_heads"] // heads
    return array.reshape(array.shape[0], each, heads, -1).swapaxes(1, 2).reshape(array.shape)


_LINEAR: dict[str, Setting] = {
    "linear_conv_kernel_dim": count("ssm.conv_kernel"),
    "linear_key_head_dim": count("ssm.state_size"),
    "linear_num_key_heads": count("ssm.group_count"),
    "linear_num_value_heads": count("ssm.time_step_rank"),
    "linear_value_head_dim": state_head,
    "full_attention_interval": count("full_attention_interval", 4),
    "partial_rotary_factor": lambda keys, config: keys.size("rope.dimension_count") / config["head_dim"],
}
_NEXT: Table = {
    **QWEN_SHARED,
    "ffn_norm": None,
    "post_attention_norm": "post_attention_layernorm",
    "ssm_norm": "linear_attn.norm",
    "ssm_out": "linear_attn.out_proj",
    "ssm_a": Destination("=linear_attn.A_log", LOG_NEGATED),
    "ssm_dt": Destination("=linear_attn.dt_bias"),
    "ssm_conv1d": Destination("linear_attn.conv1d", CHANNELS),
}
_SHARED_EXPERT = {"shared_expert_intermediate_size": count("expert_shared_feed_forward_length")}
_SPARSE: dict[str, Setting] = {
    **EXPERTS,
    **_SHARED_EXPERT,
    "decoder_sparse_step": always(1),
    "mlp_only_layers": always([]),
    "norm_topk_prob": flag("expert_weights_norm", True),
}
_TILED: Table = {
    **_NEXT,
    "attn_qkv": Destination("linear_attn.in_proj_qkv", Step(_grouped_values, rows=True)),
    "attn_gate": Destination("linear_attn.in_proj_z", Step(_grouped, rows=True)),
    "ssm_beta": Destination("linear_attn.in_proj_b", Step(_grouped, rows=True)),
    "ssm_alpha": Destination("linear_attn.in_proj_a", Step(_grouped, rows=True)),
    "ssm_out": Destination("linear_attn.out_proj", Step(_grouped_columns)),
    "ssm_a": Destination(
        "=linear_attn.A_log", Step(lambda array, config: _grouped(LOG_NEGATED.run(array, config), config))
    ),
    "ssm_dt": Destination("=linear_attn.dt_bias", Step(_grouped)),
    "ssm_conv1d": Destination(
        "linear_attn.conv1d", Step(lambda array, config: CHANNELS.run(_grouped_values(array, config), config))
    ),
}
_LANGUAGE_TOP: Table = {
    "token_embd": "language_model.model.embed_tokens",
    "output_norm": "language_model.model.norm",
    "output": "language_model.lm_head",
}


def _own_rope(keys: ModelKeys, config: Config) -> dict[str, object]:
    scaling = config.get("rope_scaling") or {"rope_type": "default"}
    rotated = keys.size("rope.dimension_count") / config["head_dim"]
    return {**scaling, "rope_theta": config["rope_theta"], "partial_rotary_factor": rotated}


_GRANITE: dict[str, Setting] = {
    **GRANITE_SETTINGS,
    **_STATES,
    "layer_types": attending("attention", "mamba"),
    "mamba_proj_bias": always(False),
    "shared_intermediate_size": like("intermediate_size"),
    "position_embedding_type": lambda keys, config: "rope" if keys.flag("rope.scaling.finetuned") else "nope",
}
GRANITE_EXPERTS = Family(
    "granitemoehybrid",
    tensors={
        **PAIRED,
        **_MAMBA,
        **SPARSE,
        "ffn_gate_inp": "block_sparse_moe.router.layer",
        "ffn_gate_shexp": Destination("shared_mlp.input_linear", join=0),
        "ffn_up_shexp": Destination("shared_mlp.input_linear", join=1),
        "ffn_down_shexp": "shared_mlp.output_linear",
    },
    config={**_GRANITE, **LOCAL, "shared_intermediate_size": count("expert_shared_feed_forward_length")},
)

_QWEN_35: dict[str, Setting] = {**_LINEAR, "rope_parameters": _own_rope, "rope_scaling": nothing}

FAMILIES = {
    "lfm2": Family(
        "lfm2",
        tensors={
            **_CONVOLUTIONS,
            "ffn_gate": "feed_forward.w1",
            "ffn_up": "feed_forward.w3",
            "ffn_down": "feed_forward.w2",
        },
        top=_LFM_TOP,
        config={
            **_LFM,
            "block_dim": like("hidden_size"),
            "block_ff_dim": like("intermediate_size"),
            "block_multiple_of": always(1),
            "block_ffn_dim_multiplier": always(1.0),
            "block_auto_adjust_ff_dim": always(False),
        },
    ),
    "lfm2moe": Family(
        "lfm2_moe",
        tensors={
            **_CONVOLUTIONS,
            "ffn_gate": "feed_forward.gate_proj",
            "ffn_up": "feed_forward.up_proj",
            "ffn_down": "feed_forward.down_proj",
            "ffn_gate_inp": "feed_forward.gate",
            "ffn_gate_exps": "feed_forward.switch_mlp.gate_proj",
            "ffn_up_exps": "feed_forward.switch_mlp.up_proj",
            "ffn_down_exps": "feed_forward.switch_mlp.down_proj",
            "exp_probs_b": Destination("=feed_forward.expert_bias"),
        },
        top=_LFM_TOP,
        config={
            **_LFM,
            **EXPERTS,
            "norm_topk_prob": flag("expert_weights_norm", True),
            "use_expert_bias": lambda keys, config: any("exp_probs_b" in name for name in keys.header.tensors),
            "num_dense_layers": count("leading_dense_block_count", 0),
        },
        known=("expert_gating_func",),
    ),
    "falcon-h1": Family(
        "falcon_h1",
        tensors={
            **_MAMBA,
            "ffn_norm": "pre_ff_layernorm",
            "ffn_gate": "feed_forward.gate_proj",
            "ffn_up": "feed_forward.up_proj",
            "ffn_down": "feed_forward.down_proj",
        },
        top={"output_norm": "model.final_layernorm"},
        config={
            **_STATES,
            **_MULTIPLIED,
            "mlp_multipliers": always([1.0, 1.0]),
            "ssm_multipliers": always([1.0] * 5),
            "mamba_d_ssm": count("ssm.inner_size"),
            "mamba_rms_norm": has("blk.0.ssm_norm.weight"),
            "attention_bias": has("blk.0.attn_q.bias"),
        },
    ),
    "granitehybrid": Family("granitemoehybrid", tensors={**PAIRED, **_MAMBA}, config=_GRANITE),
    "qwen3next": Family(
        "qwen3_next",
        tensors={
            **_NEXT,
            "attn_qkv": Destination("linear_attn.in_proj_qkvz", join=0, after=Step(_by_head, rows=True)),
            "attn_gate": Destination("linear_attn.in_proj_qkvz", join=1, after=Step(_by_head, rows=True)),
            "ssm_in": "linear_attn.in_proj_qkvz",
            "ssm_ba": "linear_attn.in_proj_ba",
        },
        config={**_LINEAR, **_SPARSE},
    ),
    "qwen35": Family(
        "qwen3_5",
        wrapped=True,
        layers="language_model.model.layers",
        tensors=_TILED,
        top=_LANGUAGE_TOP,
        config=_QWEN_35,
    ),
    "qwen35moe": Family(
        "qwen3_5_moe",
        wrapped=True,
        layers="language_model.model.layers",
        tensors=_TILED,
        top=_LANGUAGE_TOP,
        config={**_QWEN_35, **_SPARSE},
    ),
}
