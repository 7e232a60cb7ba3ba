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
    of the names in GGUF. norms: the mean of the norms' weights. stacked: names below which tensors are numbered, and
    are one in GGUF; "*" is their number. split: the tensors that one of mlx-lm's is made of. wrapped: the model_type
    around `text_config`. unstored: ends of the names of parameters that keep their first value, and have no tensor.
    joined: several of GGUF's names, of which one tensor is made along an axis, and its name. A setting of None is not
    written.
    """

    architecture: str
    config: dict[str, Any]
    settings: Mapping[str, Value | None] = field(default_factory=dict)
    names: tuple[tuple[str, str], ...] = ()
    changes: dict[str, Change] = field(default_factory=dict)
    norms: float = 1.0
    label: str = ""
    stacked: tuple[str, ...] = ()
    split: Callable[[str, Floats, Mapping[str, Any]], dict[str, Floats]] | None = None
    wrapped: str = ""
    unstored: tuple[str, ...] = ()
    joined: tuple[tuple[str, ...], str, int] | None = None

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

INTERNLM = (("self_attn.", "attention."), ("q_proj", "wq"), ("k_proj", "wk"), ("v_proj", "wv"), ("o_proj", "wo"))
YARN: dict[str, Value] = {
    "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32,
}  # fmt: skip
GRANITE: dict[str, Value] = {
    "attention.scale": 0.2, "embedding_scale": 3.0, "residual_scale": 0.5, "logit_scale": 2.0,
}  # fmt: skip
LAYER_NORM: dict[str, Value] = {"attention.layer_norm_epsilon": 1e-5}
GATE_UP = (("ffn_gate_exps", "ffn_up_exps"), "ffn_gate_up_exps", 1)
LONG_FACTORS = [1.0 + 0.5 * at for at in range(8)]
