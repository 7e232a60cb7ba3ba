"""Gemma: norms that have one added, windows, soft caps, and tokens per layer."""

from __future__ import annotations

from squish.worker.gguf.family import LESS_ONE, Config, Destination, Family, Table, count, number
from squish.worker.gguf.keys import ModelKeys

_NORMS: Table = {
    "attn_norm": Destination("input_layernorm", LESS_ONE),
    "post_attention_norm": Destination("post_attention_layernorm", LESS_ONE),
    "ffn_norm": Destination("pre_feedforward_layernorm", LESS_ONE),
    "post_ffw_norm": Destination("post_feedforward_layernorm", LESS_ONE),
    "attn_q_norm": Destination("self_attn.q_norm", LESS_ONE),
    "attn_k_norm": Destination("self_attn.k_norm", LESS_ONE),
}
_TOP: Table = {"output_norm": Destination("model.norm", LESS_ONE)}


def _head_or_row(keys: ModelKeys, config: Config) -> object:
    """What the queries are divided by the root of: the 27B models of Gemma 2 and 3 have a number of their own."""
    return config["hidden_size"] // config["num_attention_heads"] if _largest(config) else config["head_dim"]


def _largest(config: Config) -> bool:
    return (config["num_hidden_layers"], config["hidden_size"]) in ((46, 4608), (62, 5376))


FAMILIES = {
    "gemma": Family(
        "gemma", tensors={**_NORMS, "ffn_norm": Destination("post_attention_layernorm", LESS_ONE)}, top=_TOP
    ),
    "gemma2": Family(
        "gemma2",
        tensors=_NORMS,
        top=_TOP,
        config={
            "attn_logit_softcapping": number("attn_logit_softcapping", 50.0),
            "final_logit_softcapping": number("final_logit_softcapping", 30.0),
            "query_pre_attn_scalar": _head_or_row,
            "sliding_window": count("attention.sliding_window", 4096),
        },
    ),
    "gemma3": Family(
        "gemma3_text",
        tensors=_NORMS,
        top=_TOP,
        config={
            "query_pre_attn_scalar": _head_or_row,
            "sliding_window": count("attention.sliding_window", 0),
            "sliding_window_pattern": lambda keys, config: (
                (keys.count("attention.sliding_window_pattern") or 6) if config["sliding_window"] else 1
            ),
            "rope_local_base_freq": number("rope.freq_base_swa", 10_000.0),
            "final_logit_softcapping": number("final_logit_softcapping"),
            "rope_theta": number("rope.freq_base", 1_000_000.0),
        },
    ),
}
