"""Decoders without experts."""

from __future__ import annotations

import math

from squish.worker.gguf.families.basis import PAIRED
from squish.worker.gguf.family import (
    FLAT,
    LESS_ONE,
    Config,
    Destination,
    Family,
    Setting,
    Table,
    always,
    count,
    cut,
    flag,
    has,
    like,
    nothing,
    number,
    windowed,
)
from squish.worker.gguf.keys import ModelKeys

_BIASED = has("blk.0.attn_q.bias")
_AROUND: Table = {
    "attn_norm": None,
    "ffn_norm": None,
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def _qkv(config: Config) -> dict[str, int]:
    keys = config["head_dim"] * config["num_key_value_heads"]
    queries = config["head_dim"] * config["num_attention_heads"]
    return {"self_attn.q_proj": queries, "self_attn.k_proj": keys, "self_attn.v_proj": keys}


def _norm_of_each(name: str, heads: str) -> Destination:
    """A norm for each head, which the file has as one tensor."""
    return cut(
        lambda config: {f"{name}.norms.{head}": config["head_dim"] for head in range(config[heads])},
        FLAT,
    )


def rotated(keys: ModelKeys, config: Config) -> float:
    """The part of a head that is rotated, for code that has another one where nothing is said."""
    head: int = config["head_dim"]
    size = keys.count("rope.dimension_count") or head
    return size / head


def _layer_norm(key: str) -> dict[str, Setting]:
    """Norms that take the mean away, under the name that the code has for their epsilon."""
    return {key: like("rms_norm_eps")}


def _own_rope(keys: ModelKeys, config: Config) -> dict[str, object]:
    """`rope_parameters` with the factor that grows with the position."""
    scaling = config.get("rope_scaling") or {"rope_type": "default"}
    found: dict[str, object] = {**scaling, "rope_theta": config["rope_theta"]}
    if keys.number("attention.temperature_scale") is not None:
        found["llama_4_scaling_beta"] = keys.number("attention.temperature_scale")
    if (multiplier := keys.number("rope.scaling.yarn_log_multiplier")) is not None:
        found |= {"mscale": 1.0, "mscale_all_dim": multiplier}
    return found


def _letters(keys: ModelKeys, config: Config) -> str | None:
    kinds = windowed(4)(keys, config)
    return "".join("L" if each == "sliding_attention" else "G" for each in kinds) if isinstance(kinds, list) else None


def _depth(keys: ModelKeys, config: Config) -> float:
    return (keys.number("residual_scale") or 1.0) * math.sqrt(config["num_hidden_layers"])


def _model_base(keys: ModelKeys, config: Config) -> float:
    return float(config["hidden_size"]) / (keys.number("logit_scale") or 1.0)


_GRANITE: dict[str, Setting] = {
    "attention_multiplier": number("attention.scale", 1.0),
    "embedding_multiplier": number("embedding_scale", 1.0),
    "residual_multiplier": number("residual_scale", 1.0),
    "logits_scaling": number("logit_scale", 1.0),
    "attention_bias": _BIASED,
    "mlp_bias": always(False),
}
GRANITE_SETTINGS = _GRANITE

OLMO_3 = Family(
    "olmo3",
    tensors=_AROUND,
    config={"sliding_window": count("attention.sliding_window"), "layer_types": windowed(4)},
)

FAMILIES = {
    "llama": Family("llama", tensors=PAIRED, config={"attention_bias": _BIASED}),
    "internlm2": Family("llama", tensors=PAIRED),
    "mistral3": Family("ministral3", tensors=PAIRED, config={"rope_parameters": _own_rope, "rope_scaling": nothing}),
    "smollm3": Family("smollm3", tensors=PAIRED, config={"attention_bias": _BIASED}),
    "qwen2": Family("qwen2"),
    "qwen2vl": Family("qwen2"),
    "qwen3": Family("qwen3"),
    "qwen3vl": Family("qwen3", known=("n_deepstack_layers",)),
    "seed_oss": Family(
        "seed_oss",
        tensors={"ffn_norm": None, "post_attention_norm": "post_attention_layernorm"},
        config={"attention_bias": _BIASED, "attention_out_bias": has("blk.0.attn_output.bias")},
    ),
    "granite": Family("granite", tensors=PAIRED, config=_GRANITE),
    "minicpm": Family(
        "minicpm",
        tensors=PAIRED,
        config={
            "scale_emb": number("embedding_scale", 1.0),
            "scale_depth": _depth,
            "dim_model_base": _model_base,
        },
    ),
    "olmo2": Family("olmo2", tensors=_AROUND),
    "command-r": Family(
        "cohere",
        config={
            "logit_scale": number("logit_scale", 1.0),
            "use_qk_norm": has("blk.0.attn_q_norm.weight"),
            **_layer_norm("layer_norm_eps"),
        },
    ),
    "cohere2": Family(
        "cohere2",
        config={
            "logit_scale": number("logit_scale", 1.0),
            "sliding_window": count("attention.sliding_window", 4096),
            "layer_types": windowed(4),
            **_layer_norm("layer_norm_eps"),
        },
    ),
    "phi2": Family(
        "phi",
        tensors={
            "attn_qkv": cut(_qkv),
            "attn_output": "self_attn.dense",
            "ffn_up": "mlp.fc1",
            "ffn_down": "mlp.fc2",
        },
        top={"output_norm": "model.final_layernorm"},
        config=_layer_norm("layer_norm_eps"),
    ),
    "phi3": Family(
        "phi3",
        tensors={"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
        config={"sliding_window": lambda keys, config: keys.count("attention.sliding_window") or None},
    ),
    "glm4": Family(
        "glm4",
        tensors={
            "attn_qkv": cut(_qkv),
            "ffn_up": "mlp.gate_up_proj",
            "post_attention_norm": "post_self_attn_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
        },
        config={"attention_bias": _BIASED, "partial_rotary_factor": rotated},
    ),
    "starcoder2": Family(
        "starcoder2", tensors={"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}, config=_layer_norm("norm_epsilon")
    ),
    "stablelm": Family(
        "stablelm",
        tensors={
            "attn_q_norm": _norm_of_each("self_attn.q_layernorm", "num_attention_heads"),
            "attn_k_norm": _norm_of_each("self_attn.k_layernorm", "num_key_value_heads"),
        },
        config={
            "use_qkv_bias": _BIASED,
            "qk_layernorm": has("blk.0.attn_q_norm.weight"),
            "use_parallel_residual": flag("use_parallel_residual", False),
            "partial_rotary_factor": rotated,
            **_layer_norm("layer_norm_eps"),
        },
    ),
    "exaone": Family(
        "exaone",
        layers="transformer.h",
        tensors={
            "attn_norm": "ln_1",
            "attn_q": "attn.attention.q_proj",
            "attn_k": "attn.attention.k_proj",
            "attn_v": "attn.attention.v_proj",
            "attn_output": "attn.attention.out_proj",
            "ffn_norm": "ln_2",
            "ffn_gate": "mlp.c_fc_0",
            "ffn_up": "mlp.c_fc_1",
            "ffn_down": "mlp.c_proj",
        },
        top={"token_embd": "transformer.wte", "output_norm": "transformer.ln_f"},
        config={"num_layers": like("num_hidden_layers"), **_layer_norm("layer_norm_epsilon")},
    ),
    "exaone4": Family(
        "exaone4",
        tensors=_AROUND,
        config={
            "sliding_window": count("attention.sliding_window"),
            "sliding_window_pattern": _letters,
        },
    ),
    "ernie4_5": Family("ernie4_5", config={"use_bias": _BIASED}),
    "hunyuan-dense": Family(
        "hunyuan_v1_dense",
        tensors={"attn_q_norm": "self_attn.query_layernorm", "attn_k_norm": "self_attn.key_layernorm"},
        config={"attention_bias": _BIASED, "use_qk_norm": has("blk.0.attn_q_norm.weight")},
    ),
    "nemotron": Family(
        "nemotron",
        tensors={
            "attn_norm": Destination("input_layernorm", LESS_ONE),
            "ffn_norm": Destination("post_attention_layernorm", LESS_ONE),
        },
        top={"output_norm": Destination("model.norm", LESS_ONE)},
        config={
            "hidden_act": always("relu2"),
            "attention_bias": _BIASED,
            "mlp_bias": has("blk.0.ffn_up.bias"),
            "partial_rotary_factor": rotated,
            **_layer_norm("norm_eps"),
        },
    ),
}
