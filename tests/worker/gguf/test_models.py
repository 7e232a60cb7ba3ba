"""Synthetic GGUF files: each architecture and format comes out as the file means it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model, load_tokenizer
from tokenizers import Tokenizer

from squish.worker.gguf.importer import import_gguf
from tests.worker.gguf.tiny import HEAD, Tiny, tiny_model
from tests.worker.gguf.writer import F16, F32, Q4_0, Q4_1, Q8_0, pack

PROMPT = mx.array([[72, 3, 200, 41, 5, 17, 99, 250, 11, 12]])


def _logits(model: Any) -> mx.array:
    model.set_dtype(mx.float32)
    logits: mx.array = model(PROMPT)
    return logits


def _imported(tiny: Tiny, folder: Path) -> Path:
    import_gguf(tiny.write(folder / "tiny.gguf"), folder / "out")
    return folder / "out"


def _config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    return config


@pytest.mark.parametrize("kind", [F32, F16, Q4_0, Q4_1, Q8_0])
@pytest.mark.parametrize("tied", [True, False])
def test_a_llama_computes_what_its_file_means(tmp_path: Path, kind: int, tied: bool) -> None:
    tiny, reference = tiny_model(kind, tied=tied)
    path = _imported(tiny, tmp_path)
    model, _ = load_model(path)
    assert mx.allclose(_logits(model), _logits(reference), rtol=1e-4, atol=1e-4).item()
    assert _config(path)["tie_word_embeddings"] is tied
    assert _config(path).get("quantization", {}).get("bits") == {Q4_0: 4, Q4_1: 4, Q8_0: 8}.get(kind)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_a_qwen_computes_what_its_file_means(tmp_path: Path, architecture: str) -> None:
    tiny, reference = tiny_model(Q8_0, architecture)
    model, _ = load_model(_imported(tiny, tmp_path))
    assert mx.allclose(_logits(model), _logits(reference), rtol=1e-4, atol=1e-4).item()


def test_formats_may_differ_between_tensors(tmp_path: Path) -> None:
    tiny, reference = tiny_model(Q4_0)
    other, _ = tiny_model(Q8_0)
    whole, _ = tiny_model(F16)
    tiny.tensors["token_embd.weight"] = other.tensors["token_embd.weight"]
    tiny.tensors["blk.1.ffn_down.weight"] = whole.tensors["blk.1.ffn_down.weight"]
    path = _imported(tiny, tmp_path)
    model, _ = load_model(path)
    assert type(model.model.layers[1].mlp.down_proj).__name__ == "Linear"
    assert model.model.embed_tokens.bits == 8
    assert model.model.layers[0].mlp.down_proj.bits == 4
    assert not mx.allclose(_logits(model), _logits(reference), rtol=1e-4, atol=1e-4).item()


def test_activations_stay_in_half_precision(tmp_path: Path) -> None:
    tiny, _ = tiny_model(Q8_0)
    model, _ = load_model(_imported(tiny, tmp_path))
    assert model(PROMPT).dtype == mx.float16


def test_llama_3_rotary_scaling_is_recognized(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    tiny, reference = tiny_model(F32, rope_scaling=scaling, rope_theta=500000.0)
    tiny.metadata["llama.rope.freq_base"] = 500000.0
    tiny.tensors["rope_freqs.weight"] = pack(_llama_3_divisors(8.0), F32)
    path = _imported(tiny, tmp_path)
    model, _ = load_model(path)
    assert scaling.items() <= _config(path)["rope_scaling"].items()
    assert mx.allclose(_logits(model), _logits(reference), rtol=1e-4, atol=1e-4).item()


def _llama_3_divisors(factor: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """As llama.cpp's converter defines them: short wavelengths untouched, long ones divided, a ramp between."""
    divisors = []
    for at in range(0, HEAD, 2):
        wavelength = 2 * math.pi * 500000.0 ** (at / HEAD)
        if wavelength < 8192 / 4:
            divisors.append(1.0)
        elif wavelength > 8192:
            divisors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


def test_control_tokens_are_special_and_bos_is_added_when_the_file_says_so(tmp_path: Path) -> None:
    tiny, _ = tiny_model(F16)
    tiny.metadata["tokenizer.ggml.add_bos_token"] = True
    path = _imported(tiny, tmp_path)
    tokenizer = load_tokenizer(path, eos_token_ids=_config(path)["eos_token_id"])
    tokens = tiny.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    ids = tokenizer.encode("hello w<tool>")
    assert [tokens[i] for i in ids] == ["<|im_start|>", "hello", "Ġw", "<tool>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "hello w<tool>"
    assert tokenizer.eos_token_ids == {len(tokens) - 2}


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("smollm", ["a", "1", "2", "3", "4", "Ġ'", "S", "ĊĊ"]),
        ("gpt-2", ["a", "1234", "Ġ'", "S", "ĊĊ"]),
        ("llama-bpe", ["a", "123", "4", "Ġ'", "S", "ĊĊ"]),
        ("qwen2", ["a", "1", "2", "3", "4", "Ġ'", "S", "ĊĊ"]),
    ],
)
def test_each_pre_tokenizer_splits_in_its_own_way(tmp_path: Path, pre: str, pieces: list[str]) -> None:
    tiny, _ = tiny_model(F16)
    tiny.metadata["tokenizer.ggml.pre"] = pre
    tokenizer = Tokenizer.from_file(str(_imported(tiny, tmp_path) / "tokenizer.json"))
    assert [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("a1234 'S\n\n")] == pieces


def test_a_read_only_file_is_imported(tmp_path: Path) -> None:
    tiny, _ = tiny_model(Q8_0)
    source = tiny.write(tmp_path / "tiny.gguf")
    source.chmod(0o444)
    before = source.read_bytes()
    import_gguf(source, tmp_path / "out")
    assert source.read_bytes() == before


def test_each_of_several_chat_templates_has_its_name(tmp_path: Path) -> None:
    tiny, _ = tiny_model(F16)
    tiny.metadata.update({
        "tokenizer.chat_template": "plain", "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.chat_template.tool_use": "with tools",
    })  # fmt: skip
    path = _imported(tiny, tmp_path)
    assert load_tokenizer(path).chat_template == {"default": "plain", "tool_use": "with tools"}


def test_a_file_of_version_2_is_read(tmp_path: Path) -> None:
    tiny, reference = tiny_model(Q8_0)
    source = tiny.write(tmp_path / "tiny.gguf")
    data = bytearray(source.read_bytes())
    data[4] = 2
    source.write_bytes(data)
    import_gguf(source, tmp_path / "out")
    model, _ = load_model(tmp_path / "out")
    assert mx.allclose(_logits(model), _logits(reference), rtol=1e-4, atol=1e-4).item()


@pytest.mark.parametrize("high", [1.0, 4.0])
def test_llama_4_and_llama_3_have_other_frequencies(tmp_path: Path, high: float) -> None:
    divisors = []
    for at in range(0, HEAD, 2):
        turns = 8192 / (2 * math.pi * 500000.0 ** (at / HEAD))
        smooth = min(1.0, max(0.0, (turns - 1) / (high - 1))) if high > 1 else float(turns > 1)
        divisors.append(1 / ((1 - smooth) / 16.0 + smooth))
    tiny, _ = tiny_model(F32)
    tiny.metadata["llama.rope.freq_base"] = 500000.0
    tiny.tensors["rope_freqs.weight"] = pack(np.array(divisors, np.float32), F32)
    scaling = _config(_imported(tiny, tmp_path))["rope_scaling"]
    assert (scaling["factor"], scaling["high_freq_factor"]) == (16.0, high)
