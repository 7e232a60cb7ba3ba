"""Tiny models of each family: config.json as transformers has it, and what llama.cpp's converter makes of it.

Names come from the `gguf` package; here stands what it does not say: settings, and what is done to the numbers. Nothing
is shared with the importer, so that the two check each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.worker.gguf.writer import Value

Floats = NDArray[np.float32]
Change = Callable[[Floats, Mapping[str, Any]], Floats]

HIDDEN, INNER, HEADS, KEY_HEADS, HEAD, LAYERS, CONTEXT = 64, 96, 4, 2, 16, 2, 128


@dataclass(frozen=True)
class Case:
    """architecture: in GGUF. config: what differs from `plain`. settings: keys of GGUF below the architecture's name.

    names: parts of mlx-lm's names, and of transformers' in their place. changes: what the converter does, by the ends
    of the names in GGUF. norms: the mean of the norms' weights.
    """

    architecture: str
    config: dict[str, Any]
    settings: dict[str, Value] = field(default_factory=dict)
    names: tuple[tuple[str, str], ...] = ()
    changes: dict[str, Change] = field(default_factory=dict)
    norms: float = 1.0
    label: str = ""

    @property
    def id(self) -> str:
        return self.label or self.architecture


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS, "head_dim": HEAD, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": CONTEXT, "tie_word_embeddings": True, **config,
    }  # fmt: skip


def paired(heads: str) -> Change:
    """Rows i and i + half of a head, rotated together, become neighbors."""

    def change(array: Floats, config: Mapping[str, Any]) -> Floats:
        shape = array.shape
        return array.reshape(config[heads], 2, -1, *shape[1:]).swapaxes(1, 2).reshape(shape)

    return change


def plus_one(array: Floats, config: Mapping[str, Any]) -> Floats:
    return array + 1


PAIRED: dict[str, Change] = {
    "attn_q.weight": paired("num_attention_heads"),
    "attn_k.weight": paired("num_key_value_heads"),
    "attn_q.bias": paired("num_attention_heads"),
    "attn_k.bias": paired("num_key_value_heads"),
}
ONE_ADDED: dict[str, Change] = {"norm.weight": plus_one}

CASES = [
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
]  # fmt: skip
