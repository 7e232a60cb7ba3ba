"""A tiny random model of each family, written as llama.cpp's converter writes it, answers as its safetensors do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import _get_classes, load_model

from squish.format import architectures
from squish.format.config import normalized
from squish.worker.gguf.families.every import FAMILIES
from squish.worker.gguf.importer import import_gguf
from squish.worker.model_files import given, read_config
from tests.worker.gguf.cases import CASES, Case, plain
from tests.worker.gguf.tiny import MERGES, tiny_vocabulary
from tests.worker.gguf.writer import F32, Blob, Value, pack, write_gguf

PROMPT = mx.array([[72, 3, 200, 41, 5, 17, 99, 250, 11, 12]])
_KEYS = {
    "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length", "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon", "rope_theta": "rope.freq_base",
    "max_position_embeddings": "context_length", "head_dim": "attention.key_length",
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_family_answers_as_its_safetensors_do(case: Case, tmp_path: Path) -> None:
    tokens, types = tiny_vocabulary()
    config = normalized({"vocab_size": len(tokens), **plain(case.config)}, "tiny")
    reference = _random(config, case.norms)
    arrays: Any = tree_flatten(reference.parameters())
    source = write_gguf(tmp_path / "tiny.gguf", _metadata(case, config, tokens, types), _stored(case, config, arrays))
    import_gguf(source, tmp_path / "out")
    with given(read_config(tmp_path / "out")):
        imported, _ = load_model(tmp_path / "out")
    ours, theirs = imported(PROMPT), reference(PROMPT)
    assert float(mx.abs(theirs).max()) > 0.1
    assert mx.allclose(ours, theirs, rtol=1e-4, atol=1e-4).item(), float(mx.abs(ours - theirs).max())


def test_every_family_is_tried_and_looked_for_on_the_hub() -> None:
    assert {case.architecture for case in CASES} == set(FAMILIES) == architectures.GGUF


def _random(config: dict[str, Any], norms: float) -> Any:
    model_class, arguments = _get_classes(config=config)
    model = model_class(arguments.from_dict(config))
    flat: Any = tree_flatten(model.parameters())
    if hasattr(model, "sanitize") and config["tie_word_embeddings"]:
        model.sanitize({name: array for name, array in flat if name != "lm_head.weight"})
        flat = tree_flatten(model.parameters())
    random = np.random.default_rng(7)
    seen = []
    for name, like in flat:
        mean, spread = (norms, 0.1) if name.endswith("norm.weight") else (0.0, 0.2)
        seen.append((name, mx.array((mean + spread * random.standard_normal(like.shape)).astype(np.float32))))
    model.update(tree_unflatten(seen))
    model.eval()
    return model


def _stored(case: Case, config: dict[str, Any], arrays: list[tuple[str, mx.array]]) -> dict[str, Blob]:
    """The tensors under GGUF's names, as the converter leaves them."""
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == case.architecture)
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    found = {}
    for name, array in arrays:
        theirs = name
        for ours, other in case.names:
            theirs = theirs.replace(ours, other)
        stored = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        assert stored is not None, f"gguf has no name for {theirs}"
        values = np.array(array)
        for end, change in case.changes.items():
            if stored.endswith(end):
                values = change(values, config)
        found[stored] = pack(np.ascontiguousarray(values), F32)
    return found


def _metadata(case: Case, config: dict[str, Any], tokens: list[str], types: list[int]) -> dict[str, Value]:
    own = {f"{case.architecture}.{key}": config[name] for name, key in _KEYS.items() if config.get(name) is not None}
    return {
        "general.architecture": case.architecture,
        **own,
        **{f"{case.architecture}.{key}": value for key, value in case.settings.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": MERGES,
    }
