"""Block formats of 256 weights, in groups whose scales are packed too: Q2_K to Q6_K, IQ4_XS, TQ1_0, TQ2_0."""

from __future__ import annotations

import numpy as np

from squish.worker.gguf.groups import (
    Bytes,
    Floats,
    Groups,
    SuperGroups,
    bit_pairs,
    column,
    float16,
    halves,
    in_pairs,
    nibbles,
    words,
)
from squish.worker.gguf.legacy import CURVE_CODES

_PAIRS = np.arange(0, 8, 2, dtype=np.uint8)
_THIRDS = np.array([1, 3, 9, 27, 81], np.uint8)


def q2_k(blocks: Bytes) -> SuperGroups:
    codes = bit_pairs(blocks[:, 16:80])
    return SuperGroups(codes, blocks[:, :16], halves(blocks, 80), of_minima=halves(blocks, 82))


def q3_k(blocks: Bytes) -> SuperGroups:
    """Two low bits, and a third that is set where nothing is taken away; scales of six bits, 32 too large."""
    high = (blocks[:, :32].reshape(-1, 1, 32) >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1)) & np.uint8(1)
    codes = bit_pairs(blocks[:, 32:96]) | (high.reshape(len(blocks), -1) << np.uint8(2))
    upper = (blocks[:, 104:108].reshape(-1, 1, 4) >> _PAIRS.reshape(1, 4, 1)) & np.uint8(3)
    scales = nibbles(blocks[:, 96:104]) | (upper.reshape(-1, 16) << np.uint8(4))
    return SuperGroups(codes, scales - np.uint8(32), halves(blocks, 108), center=4)


def q4_k(blocks: Bytes) -> SuperGroups:
    scales, minima = _k_scales(blocks)
    return SuperGroups(_runs(blocks[:, 16:]), scales, halves(blocks, 0), minima, halves(blocks, 2))


def q5_k(blocks: Bytes) -> SuperGroups:
    # Bit g of byte i is the fifth bit of weight i of group g.
    fifth = (blocks[:, 16:48].reshape(-1, 1, 32) >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1)) & np.uint8(1)
    codes = _runs(blocks[:, 48:]) | (fifth.reshape(len(blocks), -1) << np.uint8(4))
    scales, minima = _k_scales(blocks)
    return SuperGroups(codes, scales, halves(blocks, 0), minima, halves(blocks, 2))


def q6_k(blocks: Bytes) -> SuperGroups:
    """Two halves of 128 weights; each has 64 bytes of low nibbles, 32 bytes of high bit pairs and 8 int8 scales."""
    low = blocks[:, :128].reshape(-1, 2, 1, 64)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    codes = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    codes = codes | (((high >> _PAIRS.reshape(1, 1, 4, 1)) & np.uint8(3)) << np.uint8(4))
    return SuperGroups(codes.reshape(len(blocks), -1), blocks[:, 192:208], halves(blocks, 208), center=32)


def iq4_xs(blocks: Bytes) -> Groups:
    """The curve of IQ4_NL; scales of six bits, 32 too large: four in a nibble, two in a word of high bits."""
    high = (words(blocks, 2, 4, np.uint16) >> np.arange(0, 16, 2, dtype=np.uint16)) & 3
    scales = in_pairs(blocks[:, 4:8]).astype(np.float32) + 16 * high - 32
    scale = column(float16(blocks, 0) * scales)
    codes = nibbles(blocks[:, 8:].reshape(len(blocks), 8, 16)).reshape(-1, 32)
    return Groups(CURVE_CODES[codes], scale, -127 * scale)


def tq1_0(blocks: Bytes) -> Groups:
    """Five digits of base three in a byte, as a fraction of 256; in the last four bytes four."""
    parts = ((blocks[:, :32], 5), (blocks[:, 32:48], 5), (blocks[:, 48:52], 4))
    digits = [
        (packed.reshape(len(packed), 1, -1) * _THIRDS[:count].reshape(1, count, 1)).reshape(len(packed), -1)
        for packed, count in parts
    ]
    codes = (np.concatenate(digits, axis=1).astype(np.uint16) * 3 >> 8).astype(np.uint8)
    return _ternary(codes, float16(blocks, 52))


def tq2_0(blocks: Bytes) -> Groups:
    return _ternary(bit_pairs(blocks[:, :64]), float16(blocks, 64))


def _ternary(codes: Bytes, scale: Floats) -> Groups:
    scales = column(np.repeat(scale, 8, axis=1))
    return Groups(codes.reshape(-1, 32), scales, -scales)


def _k_scales(blocks: Bytes) -> tuple[Bytes, Bytes]:
    """Scales and minima of the eight groups of a 256-weight block: six-bit numbers folded into twelve bytes."""
    packed = blocks[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    return scales, minima


def _runs(packed: Bytes) -> Bytes:
    """128 bytes a block → codes (blocks, 256): each run of 32 bytes holds two groups, low halves first."""
    runs = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([runs & 15, runs >> 4], axis=2).reshape(len(packed), -1)
