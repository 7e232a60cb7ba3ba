"""Owns layers whose quantized weights are multiplied as they are, on a CPU. It knows no files and no models.

MLX's own quantized product takes a hundred times as long as BLAS on a CPU, and unpacked weights take four to eight
times the memory; decoding reads all of it for every token. So shim.c, which does MLX's products there, also takes a
quantized matrix: codes of 4 or 8 bits with float32 scales and biases, behind a header. MLX sees it as a float32 matrix
of the full shape by `mx.as_strided`, which promises more memory than there is: it may be multiplied by, from the right,
and nothing else. That is why the view never leaves this module.

Codes of 2 and 3 bits are stored as 4, of 5 and 6 as 8: the same numbers, in a size that is quick to read.
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import cache
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear

_HEADER = 16  # float32 numbers
_STORED_BITS = {2: 4, 3: 4, 4: 4, 5: 8, 6: 8, 8: 8}
_UNIT = 32  # weights that the kernel takes at a time
_FEWEST_ROWS = 16


def available() -> bool:
    """Whether the BLAS of this process reads packed matrices, which only shim.c does."""
    return mx.default_device() == mx.Device(mx.cpu) and hasattr(ctypes.CDLL(None), "squish_packed_secret")


@cache
def _secret() -> tuple[int, ...]:
    """How packed matrices begin in this process: drawn at random, so that no weights of a file are taken for one."""
    library = ctypes.CDLL(None)
    words = (ctypes.c_uint32 * 4).in_dll(library, "squish_packed_secret")
    words[:] = list(struct.unpack("<4I", os.urandom(16)))
    ctypes.c_int.in_dll(library, "squish_packed_ready").value = 1
    return tuple(words)


def can_pack(module: Module) -> bool:
    """Whether `module` is a layer that `pack` takes."""
    if type(module) not in (QuantizedLinear, QuantizedEmbedding) or module.mode != "affine":
        return False
    rows, columns = _shape(module)
    return module.bits in _STORED_BITS and columns % _UNIT == 0 and rows >= _FEWEST_ROWS


def packed_bytes(module: Module) -> int:
    """Bytes that the weights of `module` take once packed."""
    rows, columns = _shape(module)
    scales: int = module["scales"].size
    return 4 * _HEADER + rows * columns * _STORED_BITS[module.bits] // 8 + 2 * 4 * scales


def pack(module: Module) -> Module:
    """A layer that computes what `module` does, and holds its weights once; they are in memory when this returns."""
    rows, columns = _shape(module)
    bits = _STORED_BITS[module.bits]
    codes = module["weight"] if bits == module.bits else _recoded(module, bits)
    header = mx.array([*_secret(), rows, columns, bits, module.group_size, *[0] * 8], dtype=mx.uint32)
    numbers = [module[key].astype(mx.float32).flatten() for key in ("scales", "biases")]
    base = mx.concatenate([header.view(mx.float32), codes.flatten().view(mx.float32), *numbers])
    mx.eval(base)
    kind = PackedLinear if isinstance(module, QuantizedLinear) else PackedEmbedding
    layer: Any = kind.__new__(kind)
    module_init: Any = Module.__init__
    module_init(layer)
    layer.group_size, layer.bits, layer.mode = module.group_size, bits, module.mode
    if kind is PackedEmbedding:
        layer.num_embeddings, layer.dims = module.num_embeddings, module.dims
    if "bias" in module:
        layer.bias = module["bias"].astype(mx.float32)
    ends = [_HEADER + codes.size, _HEADER + codes.size + numbers[0].size]
    _, codes_part, scales, biases = mx.split(base, [_HEADER, *ends])
    layer.weight = codes_part.view(mx.uint32).reshape(rows, -1)
    layer.scales, layer.biases = scales.reshape(rows, -1), biases.reshape(rows, -1)
    layer._matrix = mx.as_strided(base, (columns, rows), (1, columns))
    mx.eval(layer.parameters(), layer._matrix)
    layer.eval()
    packed: Module = layer
    return packed


class PackedLinear(QuantizedLinear):
    """x · Wᵀ + bias with W packed. x: (..., columns) float32."""

    _matrix: mx.array  # (columns, rows); its name keeps it out of the parameters

    def __call__(self, x: mx.array) -> mx.array:
        product = x @ self._matrix
        return product + self["bias"] if "bias" in self else product


class PackedEmbedding(QuantizedEmbedding):
    """An embedding, whose rows are looked up in the packed weights; tied to an output layer by `as_linear`."""

    _matrix: mx.array

    def as_linear(self, x: mx.array) -> mx.array:
        return x @ self._matrix


def _shape(module: Module) -> tuple[int, int]:
    rows, words = module["weight"].shape
    return rows, words * 32 // module.bits


def _recoded(module: Module, bits: int) -> mx.array:
    """The same codes in fields of `bits` bits: (rows, columns · bits / 32) uint32."""
    one, zero = mx.ones_like(module["scales"]), mx.zeros_like(module["scales"])
    plain = mx.dequantize(module["weight"], one, zero, module.group_size, module.bits).astype(mx.uint8)
    if bits == 4:
        plain = plain[:, ::2] | (plain[:, 1::2] << 4)
    return mx.contiguous(plain).view(mx.uint32)
