"""Architectures that GGUF names and that are not imported, each with the reason, for messages and for the reference."""

from __future__ import annotations

from collections.abc import Mapping

_NO_CODE = "mlx-lm has no code for it"
_ENCODER = "it computes embeddings or translates, and generates no text"
_DIFFUSION = "it writes by diffusion, and mlx-lm writes one token after the other"
_TOKENIZER = "its tokenizer is code that comes with the model, and no code of a model is run"

_REASONS: Mapping[str, str] = {
    "bitnet": "these models use another activation than mlx-lm's bitnet",
    "chatglm": "these models rotate half of each head, and mlx-lm's glm the whole",
    "clip": "it is the projector for images of a model",
    "gptj": "llama.cpp has its name only, and no files of it are made",
    "hunyuan_vl": "mlx-lm has no code for its positions",
    "plamo2": _TOKENIZER,
    "plamo3": _TOKENIZER,
    "xverse": "only its safetensors files are imported",
    "wavtokenizer-dec": "it makes sound",
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), _DIFFUSION),
    **dict.fromkeys(
        (
            "bert", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llama-embed", "modern-bert",
            "neo-bert", "nomic-bert", "nomic-bert-moe", "t5", "t5encoder",
        ),
        _ENCODER,
    ),
    **dict.fromkeys(
        (
            "arcee", "arctic", "arwkv7", "baichuan", "bloom", "chameleon", "codeshell", "cogvlm", "deepseek2-ocr",
            "falcon", "grok", "grovemoe", "jais", "jais2", "maincoder", "mpt", "orion", "paddleocr", "pangu-embedded",
            "plm", "refact", "rwkv6", "rwkv6qwen2", "smallthinker",
        ),
        _NO_CODE,
    ),
}  # fmt: skip
RUN_FROM_SAFETENSORS = frozenset({"bert", "gptj", "xverse"})
"""Those whose safetensors files run."""
REFUSED = dict(sorted(_REASONS.items()))
