"""Block formats of 32 weights with one scale: Q4_0 to Q8_0, MXFP4, and the curved IQ4_NL."""

from __future__ import annotations

import numpy as np

from squish.worker.gguf.groups import Bytes, Groups, bits, float16, nibbles

# The sixteen values of IQ4_NL and IQ4_XS; 127 is added to make codes of them.
CURVE = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int16)
CURVE_CODES = (CURVE + 127).astype(np.uint8)


def q4_0(blocks: Bytes) -> Groups:
    scale = float16(blocks, 0)
    return Groups(nibbles(blocks[:, 2:]), scale, -8 * scale)


def q4_1(blocks: Bytes) -> Groups:
    return Groups(nibbles(blocks[:, 4:]), float16(blocks, 0), float16(blocks, 2))


def q5_0(blocks: Bytes) -> Groups:
    scale = float16(blocks, 0)
    return Groups(nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2), scale, -16 * scale)


def q5_1(blocks: Bytes) -> Groups:
    return Groups(nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4), float16(blocks, 0), float16(blocks, 2))


def q8_0(blocks: Bytes) -> Groups:
    scale = float16(blocks, 0)
    # Signed codes become unsigned by turning the sign bit over, which adds 128.
    return Groups(blocks[:, 2:] ^ np.uint8(128), scale, -128 * scale)


def iq4_nl(blocks: Bytes) -> Groups:
    scale = float16(blocks, 0)
    return Groups(CURVE_CODES[nibbles(blocks[:, 2:])], scale, -127 * scale)


def mxfp4(blocks: Bytes) -> tuple[Bytes, Bytes]:
    """Codes of shape (groups, 32) and exponents of shape (groups, 1), as MLX has them too."""
    return nibbles(blocks[:, 1:]), blocks[:, :1]


def _fifth_bits(blocks: Bytes, at: int) -> Bytes:
    """Bit i of the 32-bit word at byte `at` is the fifth bit of weight i."""
    return bits(blocks[:, at : at + 4]) << np.uint8(4)
