"""Decoders without experts that differ from llama in little."""

from __future__ import annotations

from squish.worker.gguf.families.basis import PAIRED
from squish.worker.gguf.family import Family, has

FAMILIES = {
    "llama": Family("llama", tensors=PAIRED, config={"attention_bias": has("blk.0.attn_q.bias")}),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3"),
}
