"""Synthetic GGUF files: each architecture and format comes out as the file means it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model, load_tokenizer
from tokenizers import Tokenizer

from squish.worker.gguf.blocks import PACKED, decode
from squish.worker.gguf.file import read_header, read_tensor
from squish.worker.gguf.importer import import_gguf
from tests.worker.gguf.tiny import HEAD, Tiny, tiny_model
from tests.worker.gguf.writer import F16, F32, Q4_0, Q4_1, Q8_0, Blob, pack

Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, BF16 = 6, 7, 12, 13, 14, 30
BLOCK_BYTES = {Q5_0: 22, Q5_1: 24, Q4_K: 144, Q5_K: 176, Q6_K: 210, BF16: 2}
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


def _random_blocks(kind: int) -> Blob:
    """Blocks of random bits whose float16 scales are ordinary numbers."""
    random = np.random.default_rng(kind)
    shape = (4, 512)
    if kind == BF16:
        numbers = random.standard_normal(shape).astype(np.float32)
        return Blob(shape, kind, np.ascontiguousarray(numbers.view(np.uint16)[:, 1::2]).tobytes())
    blocks = random.integers(0, 256, (math.prod(shape) // (32 if kind < Q4_K else 256), BLOCK_BYTES[kind]), np.uint8)
    scales = random.uniform(0.01, 0.05, (len(blocks), 2)).astype(np.float16).view(np.uint8)
    if kind == Q6_K:
        blocks[:, 208:] = scales[:, :2]
    else:
        width = 2 if kind == Q5_0 else 4
        blocks[:, :width] = scales[:, :width]
    return Blob(shape, kind, blocks.tobytes())


def _decoded(source: Path, *, packed: bool = True) -> mx.array:
    info = read_header(source).tensors["a.weight"]
    packing = PACKED.get(info.format.name)
    found = decode(read_tensor(info), info, packed=packed and packing is not None)
    if packing is None or found.scales is None or found.biases is None:
        return found.weight.astype(mx.float32)
    scales, biases = found.scales.astype(mx.float32), found.biases.astype(mx.float32)
    return mx.dequantize(found.weight, scales, biases, group_size=32, bits=packing.bits)


@pytest.mark.parametrize(("kind", "bits"), [(Q5_0, 6), (Q5_1, 6), (Q4_K, 5), (Q5_K, 6), (Q6_K, 9)])
def test_a_quantized_format_takes_little_more_than_in_the_file(tmp_path: Path, kind: int, bits: int) -> None:
    """bits: of a weight, scale and bias included."""
    blob = _random_blocks(kind)
    source = Tiny({"general.architecture": "llama"}, {"a.weight": blob}).write(tmp_path / "a.gguf")
    info = read_header(source).tensors["a.weight"]
    found = decode(read_tensor(info), info, packed=True)
    assert found.scales is not None and found.biases is not None
    assert found.weight.nbytes + found.scales.nbytes + found.biases.nbytes == math.prod(blob.shape) * bits // 8


def test_q6_k_keeps_its_values_to_an_eighth_of_their_distance(tmp_path: Path) -> None:
    source = Tiny({"general.architecture": "llama"}, {"a.weight": _random_blocks(Q6_K)}).write(tmp_path / "a.gguf")
    loaded: Any = mx.load(str(shutil.copyfile(source, tmp_path / "copy.gguf")))
    theirs = np.array(loaded["a.weight"].astype(mx.float32)).reshape(-1, 2, 16)
    ours = np.array(_decoded(source)).reshape(-1, 2, 16)
    steps = [np.diff(np.unique(group)).min() if group.any() else 0.0 for group in theirs.reshape(-1, 16)]
    largest = np.array(steps).reshape(-1, 2).max(axis=1)
    assert (np.abs(ours - theirs).max(axis=(1, 2)) <= largest * 0.13).all()


@pytest.mark.parametrize("kind", [BF16, Q6_K])
def test_a_decoded_format_is_what_mlx_decodes(tmp_path: Path, kind: int) -> None:
    source = Tiny({"general.architecture": "llama"}, {"a.weight": _random_blocks(kind)}).write(tmp_path / "a.gguf")
    loaded: Any = mx.load(str(shutil.copyfile(source, tmp_path / "copy.gguf")))
    theirs: mx.array = loaded["a.weight"].astype(mx.float32)
    ours = _decoded(source, packed=False)
    assert float(mx.abs(theirs).max()) > 0.5
    assert mx.allclose(ours, theirs, rtol=1e-3, atol=1e-5).item()


@pytest.mark.parametrize("kind", [Q5_0, Q5_1, Q4_K, Q5_K])
def test_a_decoded_format_is_what_its_definition_says(tmp_path: Path, kind: int) -> None:
    blob = _random_blocks(kind)
    source = Tiny({"general.architecture": "llama"}, {"a.weight": blob}).write(tmp_path / "a.gguf")
    size = BLOCK_BYTES[kind]
    blocks = [blob.data[at : at + size] for at in range(0, len(blob.data), size)]
    expected = [value for block in blocks for value in _weights(block, kind)]
    ours = _decoded(source).reshape(-1)
    # The only loss is the rounding of scales, minima or weights to float16.
    assert mx.allclose(ours, mx.array(expected), rtol=1e-3, atol=max(map(abs, expected)) * 1e-3).item()


def _number(block: bytes, at: int) -> float:
    return float(np.frombuffer(block[at : at + 2], np.float16)[0])


def _weights(block: bytes, kind: int) -> list[float]:
    """The weights of one block, one at a time."""
    if kind in (Q4_K, Q5_K):
        return _k_weights(block, kind)
    at = 2 if kind == Q5_0 else 4
    high = int.from_bytes(block[at : at + 4], "little")
    values = []
    for i in range(32):
        byte = block[at + 4 + i % 16]
        code = (byte & 15 if i < 16 else byte >> 4) + 16 * (high >> i & 1)
        values.append(_number(block, 0) * (code - 16) if kind == Q5_0 else _number(block, 0) * code + _number(block, 2))
    return values


def _k_weights(block: bytes, kind: int) -> list[float]:
    packed, high, low = block[4:16], block[16:48], block[16 if kind == Q4_K else 48 :]
    values = []
    for i in range(256):
        group = i // 32
        if group < 4:
            scale, minimum = packed[group] & 63, packed[group + 4] & 63
        else:
            scale = packed[group + 4] & 15 | packed[group - 4] >> 6 << 4
            minimum = packed[group + 4] >> 4 | packed[group] >> 6 << 4
        byte = low[group // 2 * 32 + i % 32]
        code = (byte >> 4 if group % 2 else byte & 15) + (kind == Q5_K) * 16 * (high[i % 32] >> group & 1)
        values.append(_number(block, 0) * scale * code - _number(block, 2) * minimum)
    return values
