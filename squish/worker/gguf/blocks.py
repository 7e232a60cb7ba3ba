"""GGUF block formats → MLX arrays. It knows bits and bytes, no tensor names and no models.

What MLX packs in the same way, in groups of 32 with a scale and a bias, or as MXFP4, is repacked: every weight stays
what it was, up to the rounding of scales that are products in the file to float16. Formats with smaller groups are
packed again in more bits; a machine that computes with K-quants keeps them. F32, F16 and BF16 stay what they are; what
cannot stay packed becomes float16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from squish.worker.gguf import codebooks, legacy, superblocks
from squish.worker.gguf.file import TensorInfo
from squish.worker.gguf.groups import Bytes, Floats, Groups, SuperGroups
from squish.worker.model.k_quants import BITS

GROUP_SIZE = 32
_NO_NUMBER = 255  # among the exponents of MXFP4
# Whole numbers of the same size, and the bits of infinity.
_INFINITY = {
    mx.float32: (np.int32, np.uint32, 0x7F800000),
    mx.float16: (np.int16, np.uint16, 0x7C00),
    mx.bfloat16: (np.int16, np.uint16, 0x7F80),
}
# Blocks that are taken apart at a time, into numbers that take up to sixteen times their room.
_AT_ONCE = 1 << 16

Halves = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Packing:
    """How MLX holds a block format. exact: its codes are taken over; else they are quantized again, in more bits."""

    bits: int
    mode: str = "affine"
    exact: bool = True

    @property
    def key(self) -> tuple[str, int]:
        return self.mode, self.bits


PACKED: Mapping[str, Packing] = {
    "Q4_0": Packing(4),
    "Q4_1": Packing(4),
    "Q5_0": Packing(5),
    "Q5_1": Packing(5),
    "Q8_0": Packing(8),
    "Q2_K": Packing(5, exact=False),
    "Q3_K": Packing(6, exact=False),
    "Q4_K": Packing(4),
    "Q5_K": Packing(5),
    "Q6_K": Packing(8, exact=False),
    "IQ1_S": Packing(4, exact=False),
    "IQ1_M": Packing(4, exact=False),
    "IQ2_XXS": Packing(8),
    "IQ2_XS": Packing(6, exact=False),
    "IQ2_S": Packing(6, exact=False),
    "IQ3_XXS": Packing(6),
    "IQ3_S": Packing(4),
    "IQ4_NL": Packing(8),
    "IQ4_XS": Packing(8),
    "TQ1_0": Packing(2),
    "TQ2_0": Packing(2),
    "MXFP4": Packing(4, mode="mxfp4"),
}
_SUPER: Mapping[str, Callable[[Bytes], SuperGroups]] = {
    "Q2_K": superblocks.q2_k,
    "Q3_K": superblocks.q3_k,
    "Q4_K": superblocks.q4_k,
    "Q5_K": superblocks.q5_k,
    "Q6_K": superblocks.q6_k,
}


def _plain(take_apart: Callable[[Bytes], SuperGroups]) -> Callable[[Bytes], Groups]:
    return lambda blocks: take_apart(blocks).groups()


_GROUPS: Mapping[str, Callable[[Bytes], Groups]] = {
    "Q4_0": legacy.q4_0,
    "Q4_1": legacy.q4_1,
    "Q5_0": legacy.q5_0,
    "Q5_1": legacy.q5_1,
    "Q8_0": legacy.q8_0,
    **{name: _plain(take_apart) for name, take_apart in _SUPER.items()},
    "IQ1_S": codebooks.iq1_s,
    "IQ1_M": codebooks.iq1_m,
    "IQ2_XXS": codebooks.iq2_xxs,
    "IQ2_XS": codebooks.iq2_xs,
    "IQ2_S": codebooks.iq2_s,
    "IQ3_XXS": codebooks.iq3_xxs,
    "IQ3_S": codebooks.iq3_s,
    "IQ4_NL": legacy.iq4_nl,
    "IQ4_XS": superblocks.iq4_xs,
    "TQ1_0": superblocks.tq1_0,
    "TQ2_0": superblocks.tq2_0,
}


@dataclass(frozen=True, slots=True)
class Weights:
    """One tensor for MLX. Packed: weight (rows, columns x bits / 32) uint32, scales and biases (rows, columns / 32).

    minima, of_scales, of_minima: of a K-quant that stays one, as k_quants.py reads it.
    """

    weight: mx.array
    scales: mx.array | None = None
    biases: mx.array | None = None
    minima: mx.array | None = None
    of_scales: mx.array | None = None
    of_minima: mx.array | None = None

    def finite(self) -> bool:
        """Whether every number is one; of packed weights those are their scales and biases."""
        parts = (self.weight, self.scales, self.biases, self.minima, self.of_scales, self.of_minima)
        exponents = self.scales if self.biases is None and self.of_scales is None else None
        if exponents is not None and exponents.dtype == mx.uint8 and (exponents == _NO_NUMBER).any().item():
            return False
        return all(_finite(each) for each in parts if each is not None and each.dtype in _INFINITY)


def _finite(array: mx.array) -> bool:
    """Infinity has the largest exponent, and NaN larger bits than that: the largest bits of each sign tell.

    `mx.isfinite` takes a tenth of an import on a CPU; this hardly shows.
    """
    signed, unsigned, infinity = _INFINITY[array.dtype]
    numbers = np.asarray(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)
    negative = infinity + (1 << (8 * array.itemsize - 1))
    return bool(numbers.view(signed).max() < infinity and numbers.view(unsigned).max() < negative)


# A damaged scale may be infinite; it is passed on, for `Weights.finite` to find.
@np.errstate(over="ignore", invalid="ignore")
def decode(data: bytes, info: TensorInfo, *, packed: bool) -> Weights:
    """The bytes of one tensor as MLX holds it; `data` has exactly info.nbytes bytes.

    packed: as PACKED says, where its format is there; else it is decoded to float16.
    """
    name, shape = info.format.name, info.shape
    if name == "F32":
        return Weights(mx.array(np.frombuffer(data, np.float32).reshape(shape)))
    if name == "F16":
        return Weights(mx.array(np.frombuffer(data, np.float16).reshape(shape)))
    if name == "BF16":
        return Weights(mx.array(np.frombuffer(data, np.uint16).reshape(shape)).view(mx.bfloat16))
    blocks = np.frombuffer(data, np.uint8).reshape(-1, info.format.size)
    if name == "MXFP4":
        return _mxfp4(blocks, shape, packed)
    parts = [blocks[at : at + _AT_ONCE] for at in range(0, len(blocks), _AT_ONCE)]
    if not packed:
        values = [_GROUPS[name](part).values().astype(np.float16).reshape(-1) for part in parts]
        return Weights(mx.array(np.concatenate(values).reshape(shape)))
    weight, scales, biases = (np.concatenate(each) for each in zip(*(_pack(name, part) for part in parts), strict=True))
    leading = shape[:-1]
    return Weights(*(mx.array(each.reshape(*leading, -1)) for each in (weight, scales, biases)))


def decode_k_quant(data: bytes, info: TensorInfo) -> Weights:
    """The bytes of a tensor whose format is in k_quants.BITS, with its own codes and scales."""
    blocks, bits = np.frombuffer(data, np.uint8).reshape(-1, info.format.size), BITS[info.format.name]
    parts = [_SUPER[info.format.name](blocks[at : at + _AT_ONCE // 8]) for at in range(0, len(blocks), _AT_ONCE // 8)]

    def joined(name: str) -> mx.array | None:
        arrays = [found for part in parts if (found := getattr(part, name)) is not None]
        return mx.array(np.concatenate(arrays).reshape(*info.shape[:-1], -1)) if arrays else None

    words = np.concatenate([_words(part.codes.reshape(-1, GROUP_SIZE), bits) for part in parts])
    names = ("scales", "minima", "of_scales", "of_minima")
    return Weights(mx.array(words.reshape(*info.shape[:-1], -1)), **{name: joined(name) for name in names})


def _pack(name: str, blocks: Bytes) -> tuple[NDArray[np.uint32], Halves, Halves]:
    """Words, scales and biases, each of all groups in a row."""
    groups, packing = _GROUPS[name](blocks), PACKED[name]
    if not packing.exact:
        groups = _packed_again(groups.values().reshape(-1, GROUP_SIZE), packing.bits)
    scale, bias = (each.astype(np.float16).reshape(-1) for each in (groups.scale, groups.bias))
    return _words(groups.codes, packing.bits).reshape(-1), scale, bias


def _mxfp4(blocks: Bytes, shape: tuple[int, ...], packed: bool) -> Weights:
    codes, exponents = legacy.mxfp4(blocks)
    weight = mx.array(_words(codes, 4).reshape(*shape[:-1], -1))
    scales = mx.array(exponents.reshape(*shape[:-1], -1))
    if packed:
        return Weights(weight, scales)
    return Weights(mx.dequantize(weight, scales, group_size=GROUP_SIZE, bits=4, mode="mxfp4", dtype=mx.float16))


def _packed_again(values: Floats, bits: int) -> Groups:
    """The nearest codes between the ends of each group; scale and bias are float16 numbers, rounded outwards."""
    low, high, most = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True), (1 << bits) - 1
    bias = low.astype(np.float16)
    bias = np.where(bias > low, np.nextafter(bias, np.float16(-np.inf)), bias).astype(np.float32)
    exact = (high - bias) / most
    scale = exact.astype(np.float16)
    scale = np.where(scale < exact, np.nextafter(scale, np.float16(np.inf)), scale).astype(np.float32)
    codes = np.rint((values - bias) / np.where(scale > 0, scale, 1))
    return Groups(np.nan_to_num(codes).clip(0, most).astype(np.uint8), scale, bias)


def _words(codes: Bytes, bits: int) -> NDArray[np.uint32]:
    """Codes of 32 weights, each in its number of bits, the first in the lowest ones."""
    if bits == 8:
        return np.ascontiguousarray(codes).view(np.uint32)
    if bits == 4:
        return np.ascontiguousarray(codes[:, 0::2] | (codes[:, 1::2] << 4)).view(np.uint32)
    runs = codes.reshape(-1, 8).astype(np.uint64)
    joined = np.bitwise_or.reduce(runs << (np.arange(8, dtype=np.uint64) * np.uint64(bits)), axis=1)
    stream = joined.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :bits]
    return np.ascontiguousarray(stream.reshape(len(codes), -1)).view(np.uint32)
