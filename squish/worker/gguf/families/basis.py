"""What nearly every family of GGUF has in common: names of tensors, and the plain config.json."""

from __future__ import annotations

from typing import Any

from squish.worker.gguf.family import UNPAIR_KEYS, UNPAIR_QUERIES, Destination, Table
from squish.worker.gguf.keys import ModelKeys

TOP: Table = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

LAYER: Table = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.switch_mlp.gate_proj",
    "ffn_up_exps": "mlp.switch_mlp.up_proj",
    "ffn_down_exps": "mlp.switch_mlp.down_proj",
    "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj",
    "ffn_down_shexp": "mlp.shared_experts.down_proj",
    "exp_probs_b": Destination("=mlp.gate.e_score_correction_bias"),
}

# q and k as llama.cpp's converter reorders them for the llama architecture.
PAIRED: Table = {
    "attn_q": Destination("self_attn.q_proj", UNPAIR_QUERIES),
    "attn_k": Destination("self_attn.k_proj", UNPAIR_KEYS),
}


def plain_config(keys: ModelKeys) -> dict[str, Any]:
    """config.json as transformers has it for a plain decoder. Raises CorruptModel."""
    header, found = keys.header, plain_sizes(keys)
    hidden, heads = found["hidden_size"], _most(keys, "attention.head_count")
    head = keys.size("attention.key_length", max(hidden // heads, 1))
    key_heads = heads if keys.numbers("attention.head_count_kv") else keys.size("attention.head_count_kv", heads)
    if keys.numbers("attention.head_count_kv"):
        key_heads = _most(keys, "attention.head_count_kv")
    if heads % key_heads:
        raise header.corrupt(f"{heads} heads cannot share {key_heads} key heads")
    base = keys.number("rope.freq_base")
    if base is not None and base <= 0:
        raise header.corrupt("its rotary base is not usable")
    return {
        **found,
        "intermediate_size": _most(keys, "feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": head,
        "rope_theta": 10000.0 if base is None else base,
    }


def plain_sizes(keys: ModelKeys) -> dict[str, Any]:
    """What config.json has for a model with or without attention. Raises CorruptModel."""
    header = keys.header
    epsilon, plain = keys.number("attention.layer_norm_rms_epsilon"), keys.number("attention.layer_norm_epsilon")
    if not (epsilon or plain or 0) > 0:
        raise header.corrupt("its norm epsilon is missing or not usable")
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise header.corrupt("tensor token_embd.weight is missing")
    return {
        "hidden_size": keys.size("embedding_length"),
        "num_hidden_layers": keys.size("block_count") - (keys.count("nextn_predict_layers") or 0),
        "rms_norm_eps": epsilon or plain,
        "vocab_size": embedding.shape[0],
        "max_position_embeddings": keys.size("context_length"),
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }


def _most(keys: ModelKeys, name: str) -> int:
    """A size that may be another one in each layer: the largest."""
    listed = keys.numbers(name)
    return keys.size(name) if listed is None else max(max(listed, default=0), 1)
