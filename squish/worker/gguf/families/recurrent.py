"""Families whose layers, or most of them, keep a state alone: Mamba, RWKV, and what is made with them."""

from __future__ import annotations

from squish.worker.gguf.families.hybrid import CONVOLUTION, headed_states, state_head
from squish.worker.gguf.families.moe import ABSORBED, LATENT_HEADS
from squish.worker.gguf.family import (
    FLAT,
    LOG_NEGATED,
    LOG_NEGATED_STATES,
    Config,
    Destination,
    Family,
    Setting,
    Step,
    Table,
    always,
    anywhere,
    attending,
    count,
    cut,
    fixed,
    flag,
    key_heads,
    like,
    nothing,
    number,
)
from squish.worker.gguf.keys import ModelKeys

# ---- Mamba


def _states(module: str) -> Table:
    """State spaces of the first kind: a step for each channel, and a matrix of states."""
    return {
        "ssm_in": f"{module}.in_proj",
        "ssm_conv1d": Destination(f"{module}.conv1d", CONVOLUTION),
        "ssm_x": f"{module}.x_proj",
        "ssm_dt": f"{module}.dt_proj",
        "ssm_a": Destination(f"={module}.A_log", LOG_NEGATED_STATES),
        "ssm_d": Destination(f"={module}.D"),
        "ssm_out": f"{module}.out_proj",
    }


_HEADED = headed_states("mixer")
_BACKBONE: Table = {
    "token_embd": "backbone.embeddings",
    "output_norm": "backbone.norm_f",
}


_STATE: dict[str, Setting] = {
    "state_size": count("ssm.state_size"),
    "conv_kernel": count("ssm.conv_kernel"),
    "use_bias": anywhere("ssm_in.bias"),
    "use_conv_bias": anywhere("ssm_conv1d.bias"),
}
# Heads of the second kind, in which nothing bounds a step.
_STATE_HEADS: dict[str, Setting] = {
    "n_groups": count("ssm.group_count"),
    "layer_norm_epsilon": like("rms_norm_eps"),
    "time_step_limit": always([0.0, 1e9]),
}
_EMPTY = ("feed_forward_length", "attention.head_count", "attention.head_count_kv")


# ---- attention among them


def _every(wanted: str) -> Setting:
    """How the layers with experts lie: every `period`-th, of which the code counts from `offset`."""

    def found(keys: ModelKeys, config: Config) -> int:
        layers = range(config["num_hidden_layers"])
        sparse = [layer for layer in layers if f"blk.{layer}.ffn_gate_inp.weight" in keys.header.tensors]
        period = sparse[1] - sparse[0] if len(sparse) > 1 else max(len(layers), 1)
        offset = -sparse[0] % period if sparse else 0
        if sparse and sparse != [layer for layer in layers if (layer + offset) % period == 0]:
            raise keys.header.unsupported("its layers with experts are not of equal distance")
        return period if wanted == "period" else offset

    return found


def _parts(keys: ModelKeys, config: Config) -> list[str]:
    """What each layer of Nemotron-H is: M, *, E or - ."""
    tensors, found = keys.header.tensors, []
    for layer, heads in enumerate(key_heads(keys, config)):
        kinds = (("*", bool(heads)), ("M", f"blk.{layer}.ssm_in.weight" in tensors),
                 ("E", f"blk.{layer}.ffn_gate_inp.weight" in tensors))  # fmt: skip
        found.append(next((kind for kind, is_it in kinds if is_it), "-"))
    return found


_NEMOTRON: Table = {
    **_HEADED,
    "attn_norm": "norm",
    "attn_q": "mixer.q_proj",
    "attn_k": "mixer.k_proj",
    "attn_v": "mixer.v_proj",
    "attn_output": "mixer.o_proj",
    "ffn_up": "mixer.up_proj",
    "ffn_down": "mixer.down_proj",
    "ffn_gate_inp": "mixer.gate",
    "exp_probs_b": Destination("=mixer.gate.e_score_correction_bias"),
    "ffn_up_exps": "mixer.switch_mlp.fc1",
    "ffn_down_exps": "mixer.switch_mlp.fc2",
    "ffn_up_shexp": "mixer.shared_experts.up_proj",
    "ffn_down_shexp": "mixer.shared_experts.down_proj",
    "ffn_latent_down": "mixer.fc1_latent_proj",
    "ffn_latent_up": "mixer.fc2_latent_proj",
}
_NEMOTRON_SETTINGS: dict[str, Setting] = {
    **_STATE_HEADS,
    "hybrid_override_pattern": _parts,
    "ssm_state_size": count("ssm.state_size"),
    "conv_kernel": count("ssm.conv_kernel"),
    "mamba_num_heads": count("ssm.time_step_rank"),
    "mamba_head_dim": state_head,
    "attention_bias": anywhere("attn_q.bias"),
    "mlp_bias": anywhere("ffn_up.bias"),
    "mamba_proj_bias": anywhere("ssm_in.bias"),
    "use_bias": anywhere("ssm_in.bias"),
    "use_conv_bias": anywhere("ssm_conv1d.bias"),
    "rope_theta": nothing,
    "partial_rotary_factor": nothing,
    "tie_word_embeddings": always(False),
}
_ROUTED: dict[str, Setting] = {
    "n_routed_experts": count("expert_count"),
    "n_shared_experts": count("expert_shared_count"),
    "num_experts_per_tok": count("expert_used_count"),
    "moe_intermediate_size": count("expert_feed_forward_length"),
    "moe_shared_expert_intermediate_size": count("expert_shared_feed_forward_length"),
    "moe_latent_size": count("moe_latent_size"),
    "routed_scaling_factor": number("expert_weights_scale", 1.0),
    "norm_topk_prob": flag("expert_weights_norm", True),
    "n_group": count("expert_group_count", 1),
    "topk_group": count("expert_group_used_count", 1),
}

# ---- RWKV


def _low_rank(kind: str, name: str) -> Table:
    return {
        f"time_mix_{kind}1": Destination(f"=attn.{name}_lora.lora.0.weight"),
        f"time_mix_{kind}2": Destination(f"=attn.{name}_lora.lora.2.weight"),
        f"time_mix_{kind}0": Destination(f"=attn.{name}_lora.lora.2.bias"),
    }


# A vector of all heads, one row for each.
_BY_HEAD = Step(lambda array, config: array.reshape(-1, config["head_dim"]))
_MIXED = Step(lambda array, config: array.reshape(1, -1, array.shape[-1]))
_RWKV: Table = {
    **{key: place for kind in "wavg" for key, place in _low_rank(kind, kind).items()},
    "attn_norm": "attn_norm",
    "attn_norm_2": "ffn_norm",
    "time_mix_lerp_fused": cut(lambda config: {f"=attn.x_{each}": 1 for each in "rwkvag"}, _MIXED),
    "time_mix_k_k": Destination("=attn.k_k", _BY_HEAD),
    "time_mix_k_a": Destination("=attn.k_a", _BY_HEAD),
    "time_mix_r_k": Destination("=attn.r_k", _BY_HEAD),
    "time_mix_receptance": "attn.r_proj",
    "time_mix_key": "attn.k_proj",
    "time_mix_value": "attn.v_proj",
    "time_mix_output": "attn.o_proj",
    "time_mix_ln": Destination("attn.g_norm", _BY_HEAD),
    "channel_mix_lerp_k": Destination("=ffn.x_k"),
    "channel_mix_key": "ffn.key",
    "channel_mix_value": "ffn.value",
}

# ---- Kimi

_SHORT = Step(lambda array, config: array.reshape(-1, array.shape[-1], 1))


def _linear(keys: ModelKeys, config: Config) -> dict[str, object]:
    return {
        "num_heads": config["num_attention_heads"],
        "head_dim": keys.size("kda.head_dim"),
        "short_conv_kernel_size": keys.size("ssm.conv_kernel"),
        "kda_layers": [layer for layer, heads in enumerate(key_heads(keys, config), 1) if not heads],
    }


_KIMI: Table = {
    **ABSORBED,
    "ssm_conv1d_q": Destination("self_attn.q_conv.conv", _SHORT),
    "ssm_conv1d_k": Destination("self_attn.k_conv.conv", _SHORT),
    "ssm_conv1d_v": Destination("self_attn.v_conv.conv", _SHORT),
    "ssm_f_a": "self_attn.f_a_proj",
    "ssm_f_b": "self_attn.f_b_proj",
    "ssm_g_a": "self_attn.g_a_proj",
    "ssm_g_b": "self_attn.g_b_proj",
    "ssm_beta": "self_attn.b_proj",
    "ssm_a": Destination(
        "=self_attn.A_log", Step(lambda array, config: LOG_NEGATED.run(array, config).reshape(1, 1, -1, 1))
    ),
    "ssm_dt": Destination("=self_attn.dt_bias", FLAT),
    "ssm_norm": "self_attn.o_norm",
    "exp_probs_b": Destination("=mlp.e_score_correction_bias"),
}

FAMILIES = {
    "mamba": Family(
        "mamba",
        attends=False,
        layers="backbone.layers",
        tensors={**_states("mixer"), "attn_norm": "norm"},
        top=_BACKBONE,
        known=_EMPTY,
        config={
            **_STATE,
            "intermediate_size": count("ssm.inner_size"),
            "time_step_rank": count("ssm.time_step_rank"),
            "use_bcdt_rms": flag("ssm.dt_b_c_rms", False),
            "rms_norm_eps": fixed("attention.layer_norm_rms_epsilon", 1e-5),
        },
    ),
    "mamba2": Family(
        "mamba2",
        attends=False,
        layers="backbone.layers",
        tensors={**_HEADED, "attn_norm": "norm"},
        top=_BACKBONE,
        known=_EMPTY,
        config={
            **_STATE,
            **_STATE_HEADS,
            "intermediate_size": count("ssm.inner_size"),
            "num_heads": count("ssm.time_step_rank"),
            "head_dim": state_head,
            "time_step_rank": always("auto"),
        },
    ),
    "jamba": Family(
        "jamba",
        tensors={
            **_states("mamba"),
            "ssm_dt_norm": "mamba.dt_layernorm",
            "ssm_b_norm": "mamba.b_layernorm",
            "ssm_c_norm": "mamba.c_layernorm",
            "ffn_norm": "pre_ff_layernorm",
            "ffn_gate": "feed_forward.gate_proj",
            "ffn_up": "feed_forward.up_proj",
            "ffn_down": "feed_forward.down_proj",
            "ffn_gate_inp": "feed_forward.router",
            "ffn_gate_exps": "feed_forward.switch_mlp.gate_proj",
            "ffn_up_exps": "feed_forward.switch_mlp.up_proj",
            "ffn_down_exps": "feed_forward.switch_mlp.down_proj",
        },
        top={"output_norm": "model.final_layernorm"},
        config={
            "layers_block_type": attending("attention", "mamba"),
            "attn_layer_offset": always(0),
            "attn_layer_period": always(1),
            "expert_layer_offset": _every("offset"),
            "expert_layer_period": _every("period"),
            "num_experts": lambda keys, config: (
                (keys.count("expert_count") or 1) if anywhere("ffn_gate_inp.weight")(keys, config) else 1
            ),
            "num_experts_per_tok": count("expert_used_count", 1),
            "mamba_d_conv": count("ssm.conv_kernel"),
            "mamba_d_state": count("ssm.state_size"),
            "mamba_dt_rank": count("ssm.time_step_rank"),
            "mamba_expand": lambda keys, config: keys.size("ssm.inner_size") // config["hidden_size"],
            "mamba_conv_bias": anywhere("ssm_conv1d.bias"),
            "mamba_proj_bias": anywhere("ssm_in.bias"),
            "rope_theta": nothing,
        },
        known=("expert_count",),
    ),
    "nemotron_h": Family(
        "nemotron_h",
        layers="backbone.layers",
        tensors=_NEMOTRON,
        top=_BACKBONE,
        config=_NEMOTRON_SETTINGS,
    ),
    "nemotron_h_moe": Family(
        "nemotron_h",
        layers="backbone.layers",
        tensors=_NEMOTRON,
        top=_BACKBONE,
        config={**_NEMOTRON_SETTINGS, **_ROUTED},
        known=("expert_gating_func",),
    ),
    "rwkv7": Family(
        "rwkv7",
        attends=False,
        tensors=_RWKV,
        top={"token_embd": "model.embeddings", "token_embd_norm": "model.layers.0.pre_norm"},
        # The first layer mixes no values.
        surplus=("time_mix_v0", "time_mix_v1", "time_mix_v2"),
        known=("attention.head_count",),
        config={
            "intermediate_size": count("feed_forward_length"),
            "norm_eps": like("rms_norm_eps"),
            "head_dim": count("wkv.head_size"),
            "decay_low_rank_dim": count("attention.decay_lora_rank"),
            "a_low_rank_dim": count("attention.iclr_lora_rank"),
            "v_low_rank_dim": count("attention.value_residual_mix_lora_rank"),
            "gate_low_rank_dim": count("attention.gate_lora_rank"),
        },
    ),
    "kimi-linear": Family(
        "kimi_linear",
        tensors=_KIMI,
        config={
            **LATENT_HEADS,
            "num_key_value_heads": like("num_attention_heads"),
            "linear_attn_config": _linear,
            "model_max_length": like("max_position_embeddings"),
            "num_experts": count("expert_count"),
            "num_experts_per_token": count("expert_used_count"),
            "num_shared_experts": count("expert_shared_count", 0),
            "moe_intermediate_size": count("expert_feed_forward_length"),
            "first_k_dense_replace": count("leading_dense_block_count", 0),
            "routed_scaling_factor": number("expert_weights_scale", 1.0),
            "moe_renormalize": flag("expert_weights_norm", True),
            "head_dim": lambda keys, config: keys.size("kda.head_dim"),
            "mla_use_nope": always(True),
            "rope_theta": like("rope_theta"),
            "partial_rotary_factor": nothing,
        },
        known=("expert_gating_func", "expert_shared_feed_forward_length"),
    ),
}
