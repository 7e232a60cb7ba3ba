"""Tiny random models as GGUF files, each with the model that a reader must get, built from the file's own values.

The reference uses the file's rows as they lie and rotates neighbors, which is what the format means by "llama"; the
importer reorders the rows and rotates halves. Equal logits therefore check the reordering against the format itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from tokenizers import pre_tokenizers

from tests.worker.gguf.writer import F32, Blob, Value, pack, unpack, write_gguf

HIDDEN, INNER, HEADS, KEY_HEADS, HEAD, LAYERS, CONTEXT = 64, 96, 4, 2, 16, 2, 128
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w"]

_PLACES = {
    "embed_tokens": "token_embd", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "lm_head": "output",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tiny:
    """The parts of a tiny GGUF file, to be changed before they are written."""

    metadata: dict[str, Value]
    tensors: dict[str, Blob]

    def widen(self, rows: int) -> None:
        """Give it an embedding for at least so many tokens."""
        old = self.tensors["token_embd.weight"]
        if old.shape[0] < rows:
            values = np.zeros((rows, old.shape[1]), np.float32)
            self.tensors["token_embd.weight"] = pack(values, old.kind)

    def write(self, path: Path) -> Path:
        return write_gguf(path, self.metadata, self.tensors)


def tiny_model(kind: int, architecture: str = "llama", *, tied: bool = True, **extra: Any) -> tuple[Tiny, Any]:
    """(the file's parts with matrices stored as `kind`, the reference model in float32); `extra` goes to ModelArgs."""
    tokens, types = tiny_vocabulary()
    module = import_module(f"mlx_lm.models.{architecture}")
    arguments = {
        "model_type": architecture, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS, "head_dim": HEAD, "rms_norm_eps": 1e-5,
        "vocab_size": len(tokens), "max_position_embeddings": CONTEXT, "rope_theta": 10000.0,
        "rope_traditional": architecture == "llama", "tie_word_embeddings": tied, **extra,
    }  # fmt: skip
    model = module.Model(module.ModelArgs.from_dict(arguments))
    random = np.random.default_rng(7)
    tensors, seen = {}, []
    parameters: Any = tree_flatten(model.parameters())
    for name, like in parameters:
        blob = _random(random, like.shape, kind)
        tensors[_stored_name(name)] = blob
        seen.append((name, mx.array(unpack(blob))))
    model.update(tree_unflatten(seen))
    return Tiny(_metadata(architecture, tokens, types), tensors), model


def tiny_vocabulary() -> tuple[list[str], list[int]]:
    """Every byte, the merged words, two control tokens and one user-defined token; with their token types."""
    words = [merge.replace(" ", "") for merge in MERGES]
    plain = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    return [*plain, "<|im_start|>", "<|im_end|>", "<tool>"], [1] * len(plain) + [3, 3, 4]


def _random(random: np.random.Generator, shape: tuple[int, ...], kind: int) -> Blob:
    # Matrices large enough that a wrong order of rows moves the logits far beyond rounding.
    if len(shape) == 1:
        return pack((1 + 0.1 * random.standard_normal(shape)).astype(np.float16).astype(np.float32), F32)
    return pack((random.standard_normal(shape) * 0.2).astype(np.float32), kind)


def _stored_name(name: str) -> str:
    if name == "model.norm.weight":
        return "output_norm.weight"
    name = name.removeprefix("model.").replace("layers.", "blk.")
    for place in sorted(_PLACES, key=len, reverse=True):
        name = name.replace(place, _PLACES[place])
    return name


def _metadata(architecture: str, tokens: list[str], types: list[int]) -> dict[str, Value]:
    return {
        "general.architecture": architecture,
        "general.name": "Tiny",
        f"{architecture}.block_count": LAYERS,
        f"{architecture}.context_length": CONTEXT,
        f"{architecture}.embedding_length": HIDDEN,
        f"{architecture}.feed_forward_length": INNER,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": KEY_HEADS,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm" if architecture == "llama" else "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": len(tokens) - 3,
        "tokenizer.ggml.eos_token_id": len(tokens) - 2,
    }
