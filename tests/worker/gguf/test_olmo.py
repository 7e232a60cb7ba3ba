"""OLMo runs on StableLM's code, and answers as mlx-lm's code for OLMo, which needs a package that nothing brings."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import make_prompt_cache

from tests.worker.gguf.cases import Floats, paired
from tests.worker.gguf.cases_early import EARLY
from tests.worker.gguf.test_families import PROMPT, imported, made
from tests.worker.gguf.writer import F32, pack, write_gguf

_SIZES = {"num_attention_heads": 4}


def test_olmo_answers_as_mlx_lms_own_code_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hf_olmo", ModuleType("hf_olmo"))  # the code looks for it, and calls nothing of it
    olmo: Any = importlib.import_module("mlx_lm.models.olmo")
    sizes = {"d_model": 64, "n_layers": 2, "mlp_hidden_size": 192, "n_heads": 4, "vocab_size": 264}
    model = olmo.Model(olmo.ModelArgs(model_type="olmo", embedding_size=264, **sizes))
    random, parameters = np.random.default_rng(7), []
    flat: Any = tree_flatten(model.parameters())
    for name, like in flat:
        parameters.append((name, mx.array((0.2 * random.standard_normal(like.shape)).astype(np.float32))))
    model.update(tree_unflatten(parameters))
    _, metadata, _ = made(next(case for case in EARLY if case.architecture == "olmo"))
    tensors = {
        f"{key}.weight": pack(np.ascontiguousarray(value), F32)
        for name, array in parameters
        for key, value in _stored(name.removesuffix(".weight"), np.array(array)).items()
    }
    path = write_gguf(tmp_path / "tiny.gguf", {**metadata, "olmo.attention.head_count_kv": 4}, tensors)
    cache = make_prompt_cache(model)  # the code can read one token at a time only
    theirs = mx.concatenate([model(PROMPT[:, at : at + 1], cache) for at in range(PROMPT.size)], axis=1)
    ours = imported(path)(PROMPT)
    assert float(mx.abs(theirs).max()) > 0.1
    assert mx.allclose(ours, theirs, rtol=1e-4, atol=1e-4).item()


def _stored(name: str, array: Floats) -> dict[str, Floats]:
    """What the converter makes of a matrix of the first OLMo."""
    own = name.removeprefix("model.transformer.").replace("blocks.", "blk.")
    top = {"wte": "token_embd", "ff_out": "output"}
    if own in top:
        return {top[own]: array}
    layer, _, kind = own.rpartition(".")
    if kind == "att_proj":
        q, k, v = np.split(array, 3)
        turned = paired("num_attention_heads")
        return {f"{layer}.attn_q": turned(q, _SIZES), f"{layer}.attn_k": turned(k, _SIZES), f"{layer}.attn_v": v}
    if kind == "ff_proj":
        up, gate = np.split(array, 2)
        return {f"{layer}.ffn_up": up, f"{layer}.ffn_gate": gate}
    return {f"{layer}.{'attn_output' if kind == 'attn_out' else 'ffn_down'}": array}
