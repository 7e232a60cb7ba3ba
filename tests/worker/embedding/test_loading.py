"""Embedding models of mlx-lm's architectures from a directory, as their repositories have them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from squish.errors import CorruptModel, UnsupportedModel
from squish.worker.embedding import decoder
from squish.worker.embedding.embedder import Embedder, TokenizedText
from squish.worker.embedding.loading import check, load
from tests.conftest import minilm

_TEXTS = [TokenizedText([3, 1, 4, 1, 5, 9, 2, 6]), TokenizedText([2, 7, 1])]
_CONFIG = {
    "vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "rms_norm_eps": 1e-6, "max_position_embeddings": 128,
    "rope_theta": 10_000.0, "tie_word_embeddings": False,
}  # fmt: skip
_OWN: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "gemma3_text": {"use_bidirectional_attention": True, "sliding_window": 4, "layer_types": ["full_attention"] * 2},
}


def write_decoder(directory: Path, kind: str, pooling: str, **config: Any) -> Embedder:
    """A directory with random weights, without head and prefix, and what they compute with mlx-lm's own class."""
    mx.random.seed(5)
    own = _CONFIG | {"model_type": kind} | _OWN[kind] | config
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    whole = module.Model(module.ModelArgs.from_dict(own | {"sliding_window_pattern": 1}))
    flattened: Any = tree_flatten(whole.model.parameters())
    mx.save_safetensors(str(directory / "model.safetensors"), dict(flattened))
    steps = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    (directory / "1_Pooling").mkdir()
    for name, value in {
        "config.json": own,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
        "modules.json": [{"type": f"sentence_transformers.models.{each}", "path": path} for each, path in steps],
        "1_Pooling/config.json": {f"pooling_mode_{pooling}": True},
    }.items():
        (directory / name).write_text(json.dumps(value), encoding="utf-8")
    (directory / "tokenizer.json").write_bytes((minilm() / "tokenizer.json").read_bytes())
    return Embedder(decoder.HeadlessDecoder(whole, own, "m"), load(directory).recipe)


@pytest.mark.parametrize(("kind", "pooling"), [("qwen3", "lasttoken"), ("gemma3_text", "mean_tokens")])
def test_a_decoder_without_head_and_prefix_makes_its_vectors(tmp_path: Path, kind: str, pooling: str) -> None:
    reference = write_decoder(tmp_path, kind, pooling)
    loaded = load(tmp_path)
    assert (loaded.dimensions, loaded.longest, loaded.vocab_size) == (64, 128, 64)
    found, expected = loaded.embedder(_TEXTS), reference(_TEXTS)
    assert bool(mx.all(mx.abs(found - expected) < 1e-5))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    write_decoder(tmp_path, "qwen3", "lasttoken")
    config = json.loads((tmp_path / "config.json").read_text())
    for changed, error, problem in (
        ({"num_hidden_layers": 3}, CorruptModel, "do not fit together"),
        ({"is_causal": False}, UnsupportedModel, "is_causal to False"),
        ({"model_type": "mamba", "state_size": 16}, (UnsupportedModel, CorruptModel), "mamba|do not fit together"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | changed))
        with pytest.raises(error, match=problem):
            check(tmp_path)
