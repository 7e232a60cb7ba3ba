"""Tiny models with random weights, as a pull would install them, of which every rank can have a part."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from squish.models.manifest import Manifest
from squish.models.store import Store

_VOCABULARY = 256
TEMPLATE = "{%- for message in messages %}{{ message.role }}:{{ message.content }}|{% endfor -%}"


def install(store: Store, id: str, architecture: str, *, key_heads: int, layers: int) -> None:
    """One token a byte. architecture: a module of mlx_lm.models."""
    config: dict[str, Any] = {
        "model_type": architecture, "hidden_size": 64, "num_hidden_layers": layers, "intermediate_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": key_heads, "rms_norm_eps": 1e-5, "vocab_size": _VOCABULARY,
        "max_position_embeddings": 2048, "tie_word_embeddings": False,
    }  # fmt: skip
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    with store.staging(id) as folder:
        mx.save_safetensors(str(folder / "model.safetensors"), _weights(architecture, config), {"format": "mlx"})
        tokenizer.save(str(folder / "tokenizer.json"))
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
        for name, value in (("config.json", config), ("tokenizer_config.json", about)):
            (folder / name).write_text(json.dumps(value), encoding="utf-8")
        now = datetime.now(UTC)
        store.commit(folder, Manifest(id, "file:/tiny", None, architecture, "float32", 10**5, 2048, None, now))


def _weights(architecture: str, config: dict[str, Any]) -> dict[str, mx.array]:
    """Four times as large as usual: what the model says next is then clearly one token."""
    module: Any = importlib.import_module(f"mlx_lm.models.{architecture}")
    mx.random.seed(5)
    model = module.Model(module.ModelArgs.from_dict(config))
    arrays: Any = tree_flatten(model.parameters())
    return {name: array * 4 if array.ndim > 1 else array for name, array in arrays}
