"""Decoders that are named and cut in ways of their own: the first generation, and a few later ones."""

from __future__ import annotations

import mlx.core as mx

from squish.worker.gguf.families.basis import PAIRED
from squish.worker.gguf.families.dense import rotated
from squish.worker.gguf.families.moe import LATENT_NAMES
from squish.worker.gguf.family import (
    ROWS,
    UNPAIR_HEADS,
    Config,
    Destination,
    Family,
    Setting,
    Step,
    Table,
    always,
    anywhere,
    count,
    cut,
    filled,
    fixed,
    flag,
    from_list,
    has,
    key_heads,
    like,
    nothing,
    number,
    per_layer,
)
from squish.worker.gguf.keys import ModelKeys

# ---- GPT

_GPT: Table = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_GPT_SIZES: dict[str, Setting] = {
    "n_embd": like("hidden_size"),
    "n_head": like("num_attention_heads"),
    "n_layer": like("num_hidden_layers"),
    "n_positions": like("max_position_embeddings"),
    "layer_norm_epsilon": like("rms_norm_eps"),
}


def _each_head(array: mx.array, config: Config) -> mx.array:
    """All queries, all keys and all values become those of each head."""
    heads = config["num_attention_heads"]
    return array.reshape(3, heads, -1, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)


# ---- experts that are modules of their own


def _each_expert(name: str, rows: str) -> Destination:
    """A matrix for each expert, which the file has as one tensor."""
    return cut(
        lambda config: {
            f"ffn.experts.{expert}.{name}": config[rows] for expert in range(config["ffn_config"]["moe_num_experts"])
        },
        ROWS,
    )


# ---- layers of several sizes

_inner = per_layer("feed_forward_length")


def _multipliers(keys: ModelKeys, config: Config) -> list[float]:
    return [each / config["hidden_size"] for each in _inner(keys, config)]


def _blocks(keys: ModelKeys, config: Config) -> list[dict[str, object]]:
    """What each layer has of attention and of a network; parts that were taken out are none."""
    heads = per_layer("attention.head_count")(keys, config)
    found: list[dict[str, object]] = []
    for own, shared, inner in zip(heads, key_heads(keys, config), _inner(keys, config), strict=True):
        attention: dict[str, object] = {"n_heads_in_group": own // shared} if shared else {"no_op": True}
        if own and not shared:
            attention = {"replace_with_linear": True}
        # The code multiplies with 2/3 and rounds up to 256.
        network = {"ffn_mult": 3 * inner / (2 * config["hidden_size"])} if inner else {"no_op": True}
        found.append({"attention": attention, "ffn": network})
    return found


def _clipped(keys: ModelKeys, config: Config) -> None:
    """Code that cuts nothing off takes no limit."""
    if keys.number("attention.clamp_kqv"):
        raise keys.header.unsupported(f"it sets {keys.architecture}.attention.clamp_kqv, which MLX does not compute")


# ---- heads that share keys and values in turn


def _in_turn(array: mx.array, config: Config) -> mx.array:
    """Rows of queries: the file has those of the first key head first, MLX the first of each key head."""
    groups = config["num_key_value_heads"]
    return array.reshape(groups, -1, config["head_dim"], *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)


def _in_turn_columns(array: mx.array, config: Config) -> mx.array:
    return _in_turn(array.T, config).T


def _shared_heads(keys: ModelKeys, config: Config) -> int:
    return int(config["num_attention_heads"] // config["num_key_value_heads"])


_ELM = {"attn_norm": "attn_norm", "attn_qkv": "attn.qkv_proj", "attn_output": "attn.out_proj"}

FAMILIES = {
    "gpt2": Family(
        "gpt2",
        layers="model.h",
        tensors=_GPT,
        top={"token_embd": "model.wte", "position_embd": "model.wpe", "output_norm": "model.ln_f"},
        # Some files have the embedding a second time.
        skipped=("output",),
        config={**_GPT_SIZES, "n_ctx": like("max_position_embeddings"), "tie_word_embeddings": always(True)},
    ),
    "starcoder": Family(
        "gpt_bigcode",
        layers="transformer.h",
        tensors=_GPT,
        top={
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
        },
        config={
            **_GPT_SIZES,
            "n_inner": like("intermediate_size"),
            "multi_query": lambda keys, config: config["num_key_value_heads"] == 1,
            "attention_bias": has("blk.0.attn_qkv.bias"),
            "mlp_bias": has("blk.0.ffn_up.bias"),
        },
    ),
    "gptneox": Family(
        "gpt_neox",
        layers="model.h",
        tensors={
            "attn_qkv": Destination("attention.query_key_value", Step(_each_head, rows=True)),
            "attn_output": "attention.dense",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        top={
            "token_embd": "model.embed_in",
            "output_norm": "model.final_layer_norm",
            "output": "model.embed_out",
        },
        config={
            "layer_norm_eps": like("rms_norm_eps"),
            "rotary_emb_base": like("rope_theta"),
            "rotary_pct": rotated,
            "use_parallel_residual": flag("use_parallel_residual", True),
        },
    ),
    # mlx-lm's own code needs a package that it does not bring. StableLM's computes the same, with norms of ones.
    "olmo": Family(
        "stablelm",
        tensors=PAIRED,
        made={
            f"{name}.{part}": filled(value)
            for name in ("input_layernorm", "post_attention_layernorm", "model.norm")
            for part, value in (("weight", 1.0), ("bias", 0.0))
        },
        config={
            "layer_norm_eps": like("rms_norm_eps"),
            "use_qkv_bias": always(False),
            "partial_rotary_factor": rotated,
            "clip_qkv": _clipped,
        },
    ),
    "qwen": Family(
        "qwen",
        layers="transformer.h",
        tensors={**_GPT, "ffn_up": "mlp.w1", "ffn_gate": "mlp.w2"},
        top={"token_embd": "transformer.wte", "output_norm": "transformer.ln_f"},
        config={
            "layer_norm_epsilon": like("rms_norm_eps"),
            "kv_channels": like("head_dim"),
            "no_bias": always(True),
            "tie_word_embeddings": always(False),
        },
    ),
    "dbrx": Family(
        "dbrx",
        layers="transformer.blocks",
        tensors={
            "attn_norm": "norm_attn_norm.norm_1",
            "attn_qkv": "norm_attn_norm.attn.Wqkv",
            "attn_output": "norm_attn_norm.attn.out_proj",
            "attn_output_norm": "norm_attn_norm.norm_2",
            "ffn_gate_inp": "ffn.router.layer",
            "ffn_gate_exps": _each_expert("w1", "intermediate_size"),
            "ffn_up_exps": _each_expert("v1", "intermediate_size"),
            "ffn_down_exps": _each_expert("w2", "hidden_size"),
        },
        top={"token_embd": "transformer.wte", "output_norm": "transformer.norm_f"},
        config={
            "rms_norm_eps": fixed("attention.layer_norm_epsilon", 1e-5),
            "d_model": like("hidden_size"),
            "n_heads": like("num_attention_heads"),
            "n_layers": like("num_hidden_layers"),
            "max_seq_len": like("max_position_embeddings"),
            "attn_config": lambda keys, config: {
                "kv_n_heads": config["num_key_value_heads"],
                "clip_qkv": keys.number("attention.clamp_kqv") or 1e9,
                "rope_theta": config["rope_theta"],
            },
            "ffn_config": lambda keys, config: {
                "ffn_hidden_size": config["intermediate_size"],
                "moe_num_experts": keys.size("expert_count"),
                "moe_top_k": keys.size("expert_used_count"),
            },
        },
    ),
    "openelm": Family(
        "openelm",
        layers="transformer.layers",
        tensors={
            **_ELM,
            "attn_q_norm": "attn.q_norm",
            "attn_k_norm": "attn.k_norm",
            "ffn_norm": "ffn_norm",
            "ffn_gate": Destination("ffn.proj_1", join=0),
            "ffn_up": Destination("ffn.proj_1", join=1),
            "ffn_down": "ffn.proj_2",
        },
        top={"token_embd": "transformer.token_embeddings", "output_norm": "transformer.norm"},
        config={
            "model_dim": like("hidden_size"),
            "num_transformer_layers": like("num_hidden_layers"),
            "num_query_heads": per_layer("attention.head_count"),
            "num_kv_heads": key_heads,
            "ffn_multipliers": _multipliers,
            "ffn_dim_divisor": always(1),
            "rope_freq_constant": like("rope_theta"),
            "share_input_output_layers": like("tie_word_embeddings"),
            "normalize_qk_projections": has("blk.0.attn_q_norm.weight"),
        },
    ),
    "deci": Family(
        "nemotron-nas",
        tensors={
            "attn_q": Destination("self_attn.q_proj", UNPAIR_HEADS),
            "attn_k": Destination("self_attn.k_proj", UNPAIR_HEADS),
            "attn_output": Destination("self_attn.o_proj", otherwise="self_attn.linear"),
        },
        config={
            "block_configs": _blocks,
            "num_key_value_heads": nothing,
            "intermediate_size": nothing,
            "attention_bias": anywhere("attn_q.bias"),
        },
    ),
    "plamo": Family(
        "plamo",
        layers="model.layers.layers",
        tensors={
            "attn_norm": "norm",
            "attn_q": Destination("self_attn.q_proj", Step(_in_turn, rows=True)),
            "attn_output": Destination("self_attn.o_proj", Step(_in_turn_columns)),
        },
        config={"n_shared_head": _shared_heads, "tie_word_embeddings": always(False)},
    ),
    "apertus": Family(
        "apertus",
        tensors={"attn_norm": "attention_layernorm", "ffn_norm": "feedforward_layernorm"},
        made={f"mlp.act_fn.{name}": from_list(f"xielu.{name}") for name in ("alpha_p", "alpha_n", "beta", "eps")},
        known=tuple(f"xielu.{name}" for name in ("alpha_p", "alpha_n", "beta", "eps")),
        config={
            "mlp_bias": always(False),
            "attention_bias": always(False),
            "post_norm": always(False),
            "qk_norm": always(True),
        },
    ),
    "minicpm3": Family(
        "minicpm3",
        tensors={**LATENT_NAMES, "attn_kv_b": "self_attn.kv_b_proj"},
        config={
            "q_lora_rank": count("attention.q_lora_rank"),
            "kv_lora_rank": count("attention.kv_lora_rank"),
            "qk_rope_head_dim": count("rope.dimension_count"),
            "qk_nope_head_dim": lambda keys, config: config["head_dim"] - keys.size("rope.dimension_count"),
            # What llama.cpp has for all files: they say none of these.
            "scale_emb": number("embedding_scale", 12.0),
            "scale_depth": always(1.4),
            "dim_model_base": always(256),
            "partial_rotary_factor": nothing,
            "head_dim": nothing,
        },
    ),
}
