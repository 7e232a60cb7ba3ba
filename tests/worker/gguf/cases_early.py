"""Families that are named and cut in ways of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.worker.gguf.cases import HEADS, KEY_HEADS, LAYER_NORM, LONG_FACTORS, PAIRED, Case, Floats
from tests.worker.gguf.writer import Value

_GPT = {
    "n_embd": 64, "n_head": HEADS, "n_layer": 2, "n_positions": 128, "layer_norm_epsilon": 1e-5, "rope_theta": None,
}  # fmt: skip
_NUMBERED: dict[str, Value] = {"expert_count": 4, "expert_used_count": 2}
_XIELU = {"alpha_p": np.log(np.exp(0.8) - 1), "alpha_n": np.log(np.exp(0.3) - 1), "beta": 0.5, "eps": -1e-6}


def _by_kind(array: Floats, config: Mapping[str, Any]) -> Floats:
    """Queries, keys and values of each head become all queries, all keys, and all values."""
    return np.concatenate(list(array.reshape(HEADS, 3, -1, *array.shape[1:]).swapaxes(0, 1))).reshape(array.shape)


def _gate_and_up(name: str, array: Floats, config: Mapping[str, Any]) -> dict[str, Floats]:
    if "proj_1" not in name:
        return {name: array}
    gate, up = np.split(array, 2)
    return {"=" + name.replace("ffn.proj_1", "ffn_gate"): gate, "=" + name.replace("ffn.proj_1", "ffn_up"): up}


def _paired_heads(array: Floats, config: Mapping[str, Any]) -> Floats:
    return array.reshape(-1, 2, 8, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _of_first_key_head_first(array: Floats, config: Mapping[str, Any]) -> Floats:
    each = HEADS // KEY_HEADS
    return array.reshape(each, KEY_HEADS, 16, -1).transpose(1, 0, 2, 3).reshape(array.shape)


_NAS_BLOCKS = [
    {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 6.0}},
    {"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 12.0}},
    {"attention": {"replace_with_linear": True}, "ffn": {"ffn_mult": 6.0}},
    {"attention": {"no_op": True}, "ffn": {"ffn_mult": 6.0}},
    {"attention": {"no_op": True}, "ffn": {"no_op": True}},
]

EARLY = [
    Case(
        "gpt2", {"model_type": "gpt2", **_GPT, "n_ctx": 128, "intermediate_size": 256, "num_key_value_heads": None},
        LAYER_NORM, (("model.", "transformer."),),
    ),
    Case(
        "starcoder",
        {"model_type": "gpt_bigcode", **_GPT, "n_inner": 96, "multi_query": True, "num_key_value_heads": 1}, LAYER_NORM,
    ),
    Case(
        "gptneox",
        {
            "model_type": "gpt_neox", "layer_norm_eps": 1e-5, "rotary_emb_base": 10000, "rotary_pct": 0.25,
            "intermediate_size": 256, "num_key_value_heads": None, "tie_word_embeddings": False,
        },
        {**LAYER_NORM, "rope.dimension_count": 4, "use_parallel_residual": True},
        (("model.h.", "gpt_neox.layers."), ("model.embed_out", "embed_out"), ("model.", "gpt_neox.")),
        {"attn_qkv.weight": _by_kind, "attn_qkv.bias": _by_kind},
    ),
    Case(
        "gptneox",
        {
            "model_type": "gpt_neox", "layer_norm_eps": 1e-5, "rotary_emb_base": 10000, "rotary_pct": 1.0,
            "intermediate_size": 256, "num_key_value_heads": None, "use_parallel_residual": False,
            "tie_word_embeddings": False,
        },
        {**LAYER_NORM, "rope.dimension_count": 16, "use_parallel_residual": False},
        (("model.h.", "gpt_neox.layers."), ("model.embed_out", "embed_out"), ("model.", "gpt_neox.")),
        {"attn_qkv.weight": _by_kind, "attn_qkv.bias": _by_kind}, label="gptneox, one after the other",
    ),
    Case(
        "olmo",
        {
            "model_type": "stablelm", "layer_norm_eps": 1e-5, "use_qkv_bias": False, "partial_rotary_factor": 1.0,
            "tie_word_embeddings": False,
        },
        LAYER_NORM, changes=PAIRED, unstored=("norm.weight", "norm.bias"),
    ),
    Case(
        "qwen",
        {
            "model_type": "qwen", "layer_norm_epsilon": 1e-5, "kv_channels": 16, "no_bias": True,
            "num_key_value_heads": None, "tie_word_embeddings": False,
        },
    ),
    Case(
        "dbrx",
        {
            "model_type": "dbrx", "d_model": 64, "n_heads": HEADS, "n_layers": 2, "tie_word_embeddings": False,
            "attn_config": {"kv_n_heads": KEY_HEADS, "clip_qkv": 0.5, "rope_theta": 10000.0},
            "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
        },
        {**_NUMBERED, **LAYER_NORM, "attention.clamp_kqv": 0.5},
        stacked=tuple(f"ffn.experts.*.{each}" for each in ("w1", "v1", "w2")),
    ),
    Case(
        "openelm",
        {
            "model_type": "openelm", "model_dim": 64, "num_transformer_layers": 2, "num_query_heads": [4, 2],
            "num_kv_heads": [2, 1], "ffn_multipliers": [1.5, 1.0], "ffn_dim_divisor": 32, "rope_freq_constant": 10000,
            "share_input_output_layers": True, "rms_norm_eps": 1e-6,
        },
        {
            "attention.head_count": [4, 2], "attention.head_count_kv": [2, 1], "feed_forward_length": [96, 64],
            "attention.value_length": 16, "rope.dimension_count": 16,
        },
        split=_gate_and_up,
    ),
    Case(
        "deci",
        {
            "model_type": "nemotron-nas", "num_hidden_layers": 5, "block_configs": _NAS_BLOCKS,
            "tie_word_embeddings": False, "num_key_value_heads": None, "intermediate_size": None,
        },
        {
            "attention.head_count": [4, 4, 4, 0, 0], "attention.head_count_kv": [2, 1, 0, 0, 0],
            "feed_forward_length": [256, 512, 256, 256, 0], "attention.value_length": 16, "rope.dimension_count": 16,
        },
        (("self_attn.linear", "self_attn.linear_attn"),),
        {"attn_q.weight": _paired_heads, "attn_k.weight": _paired_heads},
    ),
    Case(
        "plamo", {"model_type": "plamo", "n_shared_head": 2, "tie_word_embeddings": False},
        changes={
            "attn_q.weight": _of_first_key_head_first,
            "attn_output.weight": lambda array, config: _of_first_key_head_first(array.T, config).T,
        },
    ),
    Case(
        "apertus",
        {
            "model_type": "apertus", "mlp_bias": False, "attention_bias": False, "post_norm": False, "qk_norm": True,
            "tie_word_embeddings": False, "rope_scaling": None,
        },
        {f"xielu.{name}": [float(value)] * 2 for name, value in _XIELU.items()},
        unstored=tuple(f"act_fn.{name}" for name in _XIELU),
    ),
    Case(
        "minicpm3",
        {
            "model_type": "minicpm3", "q_lora_rank": 24, "kv_lora_rank": 32, "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 8, "scale_emb": 12.0, "scale_depth": 1.4, "dim_model_base": 256, "head_dim": None,
            "tie_word_embeddings": False, "num_key_value_heads": HEADS,
            "rope_scaling": {
                "rope_type": "longrope", "original_max_position_embeddings": 128, "long_factor": LONG_FACTORS,
                "short_factor": [1.0] * 8,
            },
        },
        {
            "attention.q_lora_rank": 24, "attention.kv_lora_rank": 32, "attention.key_length": 24,
            "rope.dimension_count": 16, "rope.scaling.type": "longrope",
        },
    ),
]  # fmt: skip
