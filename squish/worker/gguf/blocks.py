"""GGUF block formats → MLX arrays. It knows bits and bytes, no tensor names and no models.

Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 are what MLX calls affine quantization with groups of 32: they are repacked without
loss. Q4_K and Q5_K have the same shape; only their scales and minima, products in the file, are rounded to float16.
Q6_K has a scale for each 16 weights, which MLX's formats do not: it becomes 8 bits in groups of 32, at most an eighth
of a step of its own away. F32, F16 and BF16 stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from squish.worker.gguf.file import TensorInfo

GROUP_SIZE = 32


@dataclass(frozen=True, slots=True)
class Packing:
    """How MLX holds a format that stays packed."""

    bits: int
    mode: str = "affine"

    @property
    def key(self) -> tuple[str, int]:
        return self.mode, self.bits


PACKED = {
    "Q4_0": Packing(4),
    "Q4_1": Packing(4),
    "Q4_K": Packing(4),
    "Q5_0": Packing(5),
    "Q5_1": Packing(5),
    "Q5_K": Packing(5),
    "Q6_K": Packing(8),
    "Q8_0": Packing(8),
}

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """One tensor for MLX. Packed: weight (rows, columns x bits / 32) uint32, scales and biases (rows, columns / 32)."""

    weight: mx.array
    scales: mx.array | None = None
    biases: mx.array | None = None


@dataclass(frozen=True, slots=True)
class _Groups:
    """Codes of shape (groups, 32) with value = code x scale + bias; scale and bias of shape (groups, 1)."""

    codes: Bytes
    scale: Floats
    bias: Floats

    def values(self) -> Floats:
        return self.codes * self.scale + self.bias


# A damaged scale may be infinite; it is passed on like any other number.
@np.errstate(over="ignore", invalid="ignore")
def decode(data: bytes, info: TensorInfo, *, packed: bool) -> Weights:
    """The bytes of one tensor as MLX holds it; `data` has exactly info.nbytes bytes.

    packed: keep it as packed as it is, where its format is in PACKED; else it is decoded to float16.
    """
    name = info.format.name
    if name == "F32":
        return Weights(mx.array(np.frombuffer(data, np.float32).reshape(info.shape)))
    if name == "F16":
        return Weights(mx.array(np.frombuffer(data, np.float16).reshape(info.shape)))
    if name == "BF16":
        return Weights(mx.array(np.frombuffer(data, np.uint16).reshape(info.shape)).view(mx.bfloat16))
    blocks = np.frombuffer(data, np.uint8).reshape(-1, info.format.size)
    if name == "Q6_K" and not packed:
        return Weights(_half(_q6_k(blocks).reshape(info.shape)))
    groups = _in_8_bits(_q6_k(blocks).reshape(-1, 32)) if name == "Q6_K" else _GROUPS[name](blocks)
    if not packed:
        return Weights(_half(groups.values().reshape(info.shape)))
    leading = info.shape[:-1]
    return Weights(
        weight=mx.array(_words(groups.codes, PACKED[name].bits).reshape(*leading, -1)),
        scales=_half(groups.scale.reshape(*leading, -1)),
        biases=_half(groups.bias.reshape(*leading, -1)),
    )


def _words(codes: Bytes, bits: int) -> NDArray[np.uint32]:
    """Codes, each in its number of bits, the first in the lowest ones."""
    if bits == 8:
        return np.ascontiguousarray(codes).view(np.uint32)
    if bits == 4:
        return np.ascontiguousarray(codes[:, 0::2] | (codes[:, 1::2] << 4)).view(np.uint32)
    runs = codes.reshape(-1, 8).astype(np.uint64)
    joined = np.bitwise_or.reduce(runs << (np.arange(8, dtype=np.uint64) * np.uint64(bits)), axis=1)
    stream = joined.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :bits]
    return np.ascontiguousarray(stream.reshape(len(codes), -1)).view(np.uint32)


def _half(values: Floats) -> mx.array:
    return mx.array(values.astype(np.float16))


def _float16(blocks: Bytes, at: int) -> Floats:
    """The float16 number at byte `at` of every block, as a column."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """First all low halves of the bytes, then all high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _fifth_bits(blocks: Bytes, at: int) -> Bytes:
    """Bit i of the 32-bit word at byte `at` is the fifth bit of weight i."""
    return np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little") << np.uint8(4)


def _q4_0(blocks: Bytes) -> _Groups:
    scale = _float16(blocks, 0)
    return _Groups(_nibbles(blocks[:, 2:]), scale, -8 * scale)


def _q4_1(blocks: Bytes) -> _Groups:
    return _Groups(_nibbles(blocks[:, 4:]), _float16(blocks, 0), _float16(blocks, 2))


def _q5_0(blocks: Bytes) -> _Groups:
    scale = _float16(blocks, 0)
    return _Groups(_nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2), scale, -16 * scale)


def _q5_1(blocks: Bytes) -> _Groups:
    return _Groups(_nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4), _float16(blocks, 0), _float16(blocks, 2))


def _q8_0(blocks: Bytes) -> _Groups:
    scale = _float16(blocks, 0)
    # Signed codes become unsigned by turning the sign bit over, which adds 128.
    return _Groups(blocks[:, 2:] ^ np.uint8(128), scale, -128 * scale)


def _k_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """Scale and bias of the eight groups of a 256-weight block: six-bit numbers folded into twelve bytes."""
    packed = blocks[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    return (_float16(blocks, 0) * scales).reshape(-1, 1), (-_float16(blocks, 2) * minima).reshape(-1, 1)


def _k_nibbles(packed: Bytes) -> Bytes:
    """128 bytes a block → codes (blocks x 8, 32): each run of 32 bytes holds two groups, low halves first."""
    runs = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([runs & 15, runs >> 4], axis=2).reshape(-1, 32)


def _q4_k(blocks: Bytes) -> _Groups:
    return _Groups(_k_nibbles(blocks[:, 16:]), *_k_scales(blocks))


def _q5_k(blocks: Bytes) -> _Groups:
    # Bit g of byte i is the fifth bit of weight i of group g.
    fifth = np.unpackbits(blocks[:, 16:48].reshape(-1, 1, 32), axis=1, bitorder="little").reshape(-1, 32)
    return _Groups(_k_nibbles(blocks[:, 48:]) | (fifth << np.uint8(4)), *_k_scales(blocks))


def _q6_k(blocks: Bytes) -> Floats:
    """Two halves of 128 weights; each has 64 bytes of low nibbles, 32 bytes of high bit pairs and 8 int8 scales."""
    low = blocks[:, :128].reshape(-1, 2, 1, 64)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    codes = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    codes = codes | (((high >> np.arange(0, 8, 2, dtype=np.uint8).reshape(1, 1, 4, 1)) & 3) << 4)
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32) * _float16(blocks, 208)
    values: Floats = scales.reshape(-1, 1) * (codes.reshape(-1, 16).astype(np.float32) - 32)
    return values


def _in_8_bits(values: Floats) -> _Groups:
    """Groups of 32 numbers as the nearest codes; scale and bias are float16 numbers already, rounded outwards."""
    low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    bias = low.astype(np.float16)
    bias = np.where(bias > low, np.nextafter(bias, np.float16(-np.inf)), bias).astype(np.float32)
    exact = (high - bias) / 255
    scale = exact.astype(np.float16)
    scale = np.where(scale < exact, np.nextafter(scale, np.float16(np.inf)), scale).astype(np.float32)
    codes = np.rint((values - bias) / np.where(scale > 0, scale, 1))
    return _Groups(np.clip(np.nan_to_num(codes), 0, 255).astype(np.uint8), scale, bias)


_GROUPS: dict[str, Callable[[Bytes], _Groups]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
}
