"""Codes of equal groups of weights, which all block formats come to, and how bytes are taken apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Groups:
    """Codes of shape (groups, weights) with value = code x scale + bias; scale and bias of shape (groups, 1)."""

    codes: Bytes
    scale: Floats
    bias: Floats

    def values(self) -> Floats:
        return self.codes * self.scale + self.bias


@dataclass(frozen=True, slots=True)
class SuperGroups:
    """Blocks of 256 weights, whose groups' scales are small whole numbers times a float16 number of the block.

    codes: (blocks, 256). scales: (blocks, 8) uint8, of groups of 32, and minima the same; without minima (blocks, 16),
    of groups of 16: where there is of_minima, the minimum is in the high four bits, else scales are signed.
    of_scales, of_minima: (blocks, 1) float16. center: what is taken away from codes.
    """

    codes: Bytes
    scales: Bytes
    of_scales: NDArray[np.float16]
    minima: Bytes | None = None
    of_minima: NDArray[np.float16] | None = None
    center: int = 0

    def groups(self) -> Groups:
        d = self.of_scales.astype(np.float32)
        if self.of_minima is None:
            scale = d * self.scales.view(np.int8)
            bias = -self.center * scale
        else:
            m = self.of_minima.astype(np.float32)
            scale = d * (self.scales if self.minima is not None else self.scales & 15)
            bias = -m * (self.minima if self.minima is not None else self.scales >> 4)
        return Groups(self.codes.reshape(scale.size, -1), column(scale), column(bias))


def column(numbers: Floats) -> Floats:
    return np.ascontiguousarray(numbers, np.float32).reshape(-1, 1)


def halves(blocks: Bytes, at: int) -> NDArray[np.float16]:
    """The same numbers as `float16`, as they are."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)


def float16(blocks: Bytes, at: int) -> Floats:
    """The float16 number at byte `at` of every block, as a column."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def words(blocks: Bytes, start: int, end: int, kind: type[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """The whole numbers in these bytes of every block."""
    return np.ascontiguousarray(blocks[:, start:end]).view(kind)


def nibbles(packed: Bytes) -> Bytes:
    """First all low halves of the bytes, then all high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def bit_pairs(packed: Bytes) -> Bytes:
    """Two bits a weight, 32 bytes a run: (blocks, n) → (blocks, n x 4); in each run first all lowest pairs."""
    runs = packed.reshape(len(packed), -1, 1, 32)
    return ((runs >> np.arange(0, 8, 2, dtype=np.uint8).reshape(1, 1, 4, 1)) & np.uint8(3)).reshape(len(packed), -1)


def in_pairs(packed: Bytes) -> Bytes:
    """Low and high half of each byte, one after the other: (blocks, n) → (blocks, n x 2)."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def bits(packed: Bytes) -> Bytes:
    """(…, n) → (…, n x 8), the lowest bit of a byte first."""
    return np.unpackbits(packed, axis=-1, bitorder="little")
