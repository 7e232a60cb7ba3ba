"""Every block format is what the `gguf` package decodes, whether it stays packed or not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
import pytest

from squish.worker.gguf import blocks
from squish.worker.gguf.blocks import GROUP_SIZE, PACKED, decode
from squish.worker.gguf.file import TensorInfo
from squish.worker.gguf.formats import FORMATS

SHAPE = (4, 512)
# Where the float16 numbers of a block lie that scale it, and where it has none, an exponent.
_HALVES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ1_S": (0,), "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,),
    "IQ3_XXS": (0,), "IQ3_S": (0,), "IQ4_NL": (0,), "IQ4_XS": (0,), "TQ1_0": (52,), "TQ2_0": (64,),
}  # fmt: skip
_PLAIN = ("F32", "F16", "BF16")
_PACKED = [each for each in FORMATS.values() if each.name not in _PLAIN]
# How far a weight may be from the file's, in parts of the largest of its group.
_ROUNDING = 1e-3


def _blocks(number: int) -> tuple[TensorInfo, bytes]:
    """Random bits, with scales that are ordinary numbers."""
    kind = FORMATS[number]
    random = np.random.default_rng(number)
    found = random.integers(0, 256, (math.prod(SHAPE) // kind.weights, kind.size), np.uint8)
    for at in _HALVES.get(kind.name, ()):
        scales = random.uniform(0.01, 0.05, (len(found), 1)).astype(np.float16).view(np.uint8)
        found[:, at : at + 2] = scales
    if kind.name == "MXFP4":
        found[:, 0] = random.integers(118, 124, len(found))
    if kind.name == "IQ1_M":  # four bits of the scale are the highest of each word of the last eight bytes
        words = np.ascontiguousarray(found[:, 48:]).view(np.uint16) & 0x0FFF
        halves = random.uniform(0.01, 0.05, len(found)).astype(np.float16).view(np.uint16)
        for at in range(4):
            words[:, at] |= (halves >> (4 * at) & 15) << 12
        found[:, 48:] = words.view(np.uint8)
    if kind.name in ("TQ1_0", "TQ2_0"):  # of these, not all bits mean something
        values = random.integers(-1, 2, (len(found), kind.weights)).astype(np.float32) * 0.25
        found = gguf.quants.quantize(values, gguf.GGMLQuantizationType(number)).reshape(len(found), kind.size)
    data = found.tobytes()
    return TensorInfo(Path("a.gguf"), "a.weight", SHAPE, kind, 0, len(data)), data


def _expected(number: int, data: bytes) -> mx.array:
    rows = np.frombuffer(data, np.uint8).reshape(SHAPE[0], -1)
    values: Any = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(number))
    return mx.array(values.astype(np.float32).reshape(SHAPE))


def _close(ours: mx.array, theirs: mx.array, part: float) -> bool:
    """Within a part of the largest number of each group of 32."""
    largest = mx.abs(theirs).reshape(-1, GROUP_SIZE).max(axis=1, keepdims=True)
    return bool((mx.abs(ours - theirs).reshape(-1, GROUP_SIZE) <= part * largest + 1e-6).all().item())


@pytest.mark.parametrize("kind", _PACKED, ids=lambda kind: kind.name)
def test_a_format_is_decoded_as_its_definition_says(kind: Any) -> None:
    number = next(number for number, each in FORMATS.items() if each is kind)
    info, data = _blocks(number)
    theirs = _expected(number, data)
    assert float(mx.abs(theirs).max()) > 0.01
    assert _close(decode(data, info, packed=False).weight.astype(mx.float32), theirs, _ROUNDING)


@pytest.mark.parametrize("kind", _PACKED, ids=lambda kind: kind.name)
def test_a_packed_format_keeps_its_weights(kind: Any) -> None:
    number = next(number for number, each in FORMATS.items() if each is kind)
    info, data = _blocks(number)
    packing, found = PACKED[kind.name], decode(data, info, packed=True)
    assert found.scales is not None
    scales = found.scales if packing.mode == "mxfp4" else found.scales.astype(mx.float32)
    ours = mx.dequantize(
        found.weight, scales, None if found.biases is None else found.biases.astype(mx.float32),
        group_size=GROUP_SIZE, bits=packing.bits, mode=packing.mode, dtype=mx.float32,
    )  # fmt: skip
    # Quantized again, a weight moves by up to half of a step, of which a group has 2 to the bits between its ends.
    part = 2 * _ROUNDING if packing.exact else 2 * _ROUNDING + 1.1 / (2**packing.bits - 1)
    assert _close(ours, _expected(number, data), part)
    stored = sum(each.nbytes for each in (found.weight, found.scales, found.biases) if each is not None)
    per_group = 8 if packing.mode == "mxfp4" else 32
    assert stored == math.prod(SHAPE) * (packing.bits * GROUP_SIZE + per_group) // GROUP_SIZE // 8


@pytest.mark.parametrize("number", [2, 14])
def test_a_tensor_taken_apart_piece_by_piece_is_the_same(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    info, data = _blocks(number)
    whole = [decode(data, info, packed=packed) for packed in (True, False)]
    monkeypatch.setattr(blocks, "_AT_ONCE", 3)
    pieces = [decode(data, info, packed=packed) for packed in (True, False)]
    for ours, theirs in zip(pieces, whole, strict=True):
        for name in ("weight", "scales", "biases"):
            one, other = getattr(ours, name), getattr(theirs, name)
            assert one is other is None or mx.array_equal(one, other).item()


@pytest.mark.parametrize("name", _PLAIN)
def test_plain_numbers_stay_what_they_are(name: str) -> None:
    kind = next(each for each in FORMATS.values() if each.name == name)
    values = mx.array(np.random.default_rng(7).standard_normal(SHAPE).astype(np.float32))
    values = values.astype({"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}[name])
    data = np.array(values.view(mx.uint8)).tobytes()
    info = TensorInfo(Path("a.gguf"), "a.weight", SHAPE, kind, 0, len(data))
    assert mx.array_equal(decode(data, info, packed=False).weight, values).item()
