"""Block formats that choose runs of weights out of a book: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S.

The books are in codebooks.bin, deflated: the number of a value for each weight, one byte each, book after book.
"""

from __future__ import annotations

import zlib
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squish.worker.gguf.groups import Bytes, Groups, bits, float16, in_pairs, words

Numbers = NDArray[Any]

# name: number of runs, weights of a run, and the values that a weight may have.
_BOOKS = {
    "iq2_xxs": (256, 8, (8, 25, 43)),
    "iq2_xs": (512, 8, (8, 25, 43)),
    "iq2_s": (1024, 8, (8, 25, 43)),
    "iq3_xxs": (256, 4, (4, 12, 20, 28, 36, 44, 52, 62)),
    "iq3_s": (512, 4, (1, 3, 5, 7, 9, 11, 13, 15)),
    "iq1": (2048, 8, (-1, 0, 1)),
}
# Seven bits of signs; the eighth makes their number even.
_SIGNS = np.array([each | (each.bit_count() & 1) << 7 for each in range(128)], np.uint8)
_SHIFTS = np.array([0, 7, 14, 21], np.uint32)


@cache
def _book(name: str) -> NDArray[np.int16]:
    """The runs of a book, as values."""
    data, at = np.frombuffer(zlib.decompress(files(__package__).joinpath("codebooks.bin").read_bytes()), np.uint8), 0
    for each, (runs, width, values) in _BOOKS.items():
        if each == name:
            return np.array(values, np.int16)[data[at : at + runs * width]].reshape(runs, width)
        at += runs * width
    raise KeyError(name)


def iq2_xxs(blocks: Bytes) -> Groups:
    numbers = words(blocks, 2, 66, np.uint32).reshape(len(blocks), 8, 2)
    chosen = np.ascontiguousarray(numbers[:, :, 0]).view(np.uint8)
    scale = float16(blocks, 0) * (np.float32(0.5) + (numbers[:, :, 1] >> 28)) / 4
    return _signed("iq2_xxs", chosen, _folded(numbers[:, :, 1]), scale, 43, 1)


def iq2_xs(blocks: Bytes) -> Groups:
    numbers = words(blocks, 2, 66, np.uint16)
    scale = float16(blocks, 0) * (np.float32(0.5) + in_pairs(blocks[:, 66:])) / 4
    return _signed("iq2_xs", numbers & 511, _SIGNS[numbers >> 9], scale, 43, 1)


def iq2_s(blocks: Bytes) -> Groups:
    high = (blocks[:, 66:74].reshape(-1, 8, 1) >> np.arange(0, 8, 2, dtype=np.uint8)) & np.uint8(3)
    chosen = blocks[:, 2:34] | (high.reshape(len(blocks), -1).astype(np.uint16) << 8)
    scale = float16(blocks, 0) * (np.float32(0.5) + in_pairs(blocks[:, 74:])) / 4
    return _signed("iq2_s", chosen, blocks[:, 34:66], scale, 43, 1)


def iq3_xxs(blocks: Bytes) -> Groups:
    numbers = words(blocks, 66, 98, np.uint32)
    scale = float16(blocks, 0) * (np.float32(0.5) + (numbers >> 28)) / 2
    return _signed("iq3_xxs", blocks[:, 2:66], _folded(numbers), scale, 62, 2)


def iq3_s(blocks: Bytes) -> Groups:
    chosen = blocks[:, 2:66] | (bits(blocks[:, 66:74]).astype(np.uint16) << 8)
    scale = float16(blocks, 0) * (1 + 2 * in_pairs(blocks[:, 106:]).astype(np.float32))
    return _signed("iq3_s", chosen, blocks[:, 74:106], scale, 15, 2)


def iq1_s(blocks: Bytes) -> Groups:
    numbers = words(blocks, 34, 50, np.uint16)
    high = (numbers[:, :, None] >> np.arange(0, 12, 3, dtype=np.uint16)) & 7
    chosen = blocks[:, 2:34] | (high.reshape(len(blocks), -1) << 8)
    scale = float16(blocks, 0) * (2 * ((numbers >> 12) & 7).astype(np.float32) + 1)
    return _shifted(chosen, scale, numbers & 0x8000 > 0)


def iq1_m(blocks: Bytes) -> Groups:
    """The scale of a block is spread over the highest bits of four words."""
    numbers = words(blocks, 48, 56, np.uint16)
    pieces = (numbers & 0xF000) >> np.array([12, 8, 4, 0], np.uint16)
    whole = np.bitwise_or.reduce(pieces, axis=1).astype(np.uint16).view(np.float16).astype(np.float32)
    fine = ((numbers[:, :, None] >> np.arange(0, 12, 3, dtype=np.uint16)) & 7).reshape(len(blocks), -1)
    scale = np.repeat(whole[:, None] * (2 * fine.astype(np.float32) + 1), 2, axis=1)
    high = in_pairs(blocks[:, 32:48])
    chosen = blocks[:, :32] | ((high & 7).astype(np.uint16) << 8)
    return _shifted(chosen, scale, high & 8 > 0)


def _folded(numbers: Numbers) -> Bytes:
    """Four times seven bits of signs in each 32-bit word."""
    signs: Bytes = _SIGNS[((numbers[:, :, None] >> _SHIFTS) & 127).reshape(len(numbers), -1)]
    return signs


def _signed(book: str, chosen: Numbers, signs: Bytes, scale: Numbers, most: int, step: int) -> Groups:
    """Runs of a book with a sign for each weight. most: the largest value; step: what all differ by at least."""
    values = _book(book)[chosen].reshape(len(chosen), -1)
    values = np.where(bits(signs) == 1, -values, values)
    codes = ((values + most) // step).astype(np.uint8).reshape(scale.size, -1)
    column = scale.astype(np.float32).reshape(-1, 1)
    return Groups(codes, step * column, -most * column)


def _shifted(chosen: Numbers, scale: Numbers, down: NDArray[np.bool_]) -> Groups:
    """Runs of -1, 0 and 1, all an eighth higher or lower."""
    codes = (_book("iq1")[chosen] + 1).astype(np.uint8)
    runs = codes.shape[1]
    shift = np.repeat(np.where(down, -0.125, 0.125), runs // down.shape[1], axis=1).astype(np.float32).reshape(-1, 1)
    column = np.repeat(scale.astype(np.float32), runs // scale.shape[1], axis=1).reshape(-1, 1)
    return Groups(codes.reshape(-1, 8), column, column * (shift - 1))
