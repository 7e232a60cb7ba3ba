"""A model of the shape of Llama 3.2 1B, with random weights in Q4_0 and the demo model's tokenizer, as a GGUF file.

What it says makes no sense, and takes as long as sense would.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from squish.worker.gguf.file import read_header
from tests.worker.gguf.writer import F32, Q4_0, Blob, Value, write_gguf

HIDDEN, INNER, LAYERS, HEADS, KEY_HEADS, HEAD, CONTEXT = 2048, 8192, 16, 32, 8, 64, 8192
_SCALE = 0.004  # with it, matrices have the spread of trained ones: about 0.02


@dataclass(frozen=True, slots=True)
class RandomMatrix(Blob):
    """A matrix in Q4_0 that is made when it is written. data is empty."""

    seed: int = 0

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1] // 32 * 18

    def content(self) -> bytes:
        blocks = np.random.default_rng(self.seed).integers(0, 256, (self.size // 18, 18), np.uint8)
        blocks[:, :2] = np.frombuffer(np.float16(_SCALE).tobytes(), np.uint8)
        return blocks.tobytes()


def write_one_billion(path: Path, tokenizer_of: Path) -> Path:
    """Write the file. tokenizer_of: a GGUF file whose tokenizer it gets."""
    source = read_header(tokenizer_of).metadata
    tokenizer = {key: value for key, value in source.items() if key.startswith("tokenizer.")}
    tokens = tokenizer["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    metadata: dict[str, Value] = {
        "general.architecture": "llama",
        "general.name": "One billion random weights",
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KEY_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": HEAD,
        "llama.rope.freq_base": 500000.0,
        "llama.vocab_size": len(tokens),
        **{key: value for key, value in tokenizer.items() if not isinstance(value, list) or _known(value)},
    }
    return write_gguf(path, metadata, _tensors(len(tokens)))


def _known(values: list[Any]) -> bool:
    """Whether the writer knows this kind of list; scores, which are fractions, no tokenizer of this kind needs."""
    return all(isinstance(value, str) for value in values) or all(type(value) is int for value in values)


def _tensors(vocabulary: int) -> dict[str, Blob]:
    ones = Blob((HIDDEN,), F32, np.ones(HIDDEN, np.float32).tobytes())
    tensors: dict[str, Blob] = {"token_embd.weight": _matrix(vocabulary, HIDDEN, 0), "output_norm.weight": ones}
    shapes = {
        "attn_q": (HEADS * HEAD, HIDDEN),
        "attn_k": (KEY_HEADS * HEAD, HIDDEN),
        "attn_v": (KEY_HEADS * HEAD, HIDDEN),
        "attn_output": (HIDDEN, HEADS * HEAD),
        "ffn_gate": (INNER, HIDDEN),
        "ffn_up": (INNER, HIDDEN),
        "ffn_down": (HIDDEN, INNER),
    }
    for layer in range(LAYERS):
        tensors |= {f"blk.{layer}.{name}.weight": ones for name in ("attn_norm", "ffn_norm")}
        tensors |= {
            f"blk.{layer}.{name}.weight": _matrix(*shape, 1 + layer * len(shapes) + number)
            for number, (name, shape) in enumerate(shapes.items())
        }
    return tensors


def _matrix(rows: int, columns: int, seed: int) -> RandomMatrix:
    return RandomMatrix((rows, columns), Q4_0, b"", seed)
