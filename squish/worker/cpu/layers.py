"""Owns layers whose weights are read as they are stored, by the extension's products. It knows no files and no models.

`pack` takes linear layers, embeddings and experts, of MLX's and of K-quants, quantized or not. Scales stay in the
precision of the file, and half-precision weights stay half; what is computed is float32.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from squish.worker.cpu import extension
from squish.worker.model.k_quants import KQuant

_PANEL = 16  # rows of weights that are stored together; the last are filled up
_UNIT = 32  # columns that half-precision weights are filled up to
WEIGHTS = ("weight", "scales", "biases", "minima", "of_scales", "of_minima")  # what a layer has of them
_FLOATS = (mx.float32, mx.float16, mx.bfloat16)


class PackedLinear(Module):
    """x · Wᵀ + bias. x: (..., columns); of the same type as x comes back.

    matrix: the weights as the extension has them. exact: multiply in float32, and not activations of 8 bits.
    """

    def __init__(self, matrix: Any, *, exact: bool) -> None:
        module_init: Any = super().__init__
        module_init()
        self.matrix = matrix
        self.exact = exact
        self.packed = matrix.data
        self.freeze()

    def __call__(self, x: mx.array) -> mx.array:
        return _product(x, self.matrix, self.exact)

    @property
    def weight(self) -> mx.array:
        """(rows, columns) float32, unpacked each time: for models that read the weights of a layer themselves."""
        return _weight(self.matrix)


class PackedEmbedding(PackedLinear):
    """Rows of the matrix by their numbers; tied to an output layer by `as_linear`."""

    def __call__(self, x: mx.array) -> mx.array:
        rows: mx.array = extension.module().lookup(self.matrix, x)
        return rows

    def as_linear(self, x: mx.array) -> mx.array:
        return _product(x, self.matrix, self.exact)


class PackedExperts(Module):
    """Linear layers that are alike, some of which are chosen for each row: `SwitchLinear` of mlx-lm."""

    def __init__(self, matrices: list[Any], *, exact: bool) -> None:
        module_init: Any = super().__init__
        module_init()
        self._matrices = tuple(matrices)
        self.exact = exact
        self.packed = [matrix.data for matrix in matrices]
        self.input_dims, self.output_dims = matrices[0].columns, matrices[0].rows
        self.num_experts = len(matrices)
        self.freeze()

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        batch = x.shape[:-2]
        if x.size // x.shape[-1] != indices.size and batch[-1] != 1:
            x = mx.broadcast_to(x, (*indices.shape, 1, x.shape[-1]))
        chosen: mx.array = extension.module().experts(x.astype(mx.float32), indices, self._matrices, self.exact)
        return chosen if x.dtype == mx.float32 else chosen.astype(x.dtype)


def can_pack(module: Module) -> bool:
    """Whether `module` is a layer that `pack` takes."""
    kind = type(module)
    if kind is KQuant:
        return True
    if kind in (Linear, Embedding, SwitchLinear):
        return module["weight"].dtype in _FLOATS
    quantized = kind in (QuantizedLinear, QuantizedEmbedding, QuantizedSwitchLinear)
    if not quantized or module.get("global_scale") is not None:
        return False
    columns = _columns(module)
    fits = columns % _UNIT == 0 and columns % module.group_size == 0
    if module.mode == "affine":
        return fits and module["scales"].dtype in _FLOATS and module.bits in (2, 3, 4, 5, 6, 8)
    return fits and module.mode in ("mxfp4", "mxfp8", "nvfp4")


def packed_bytes(module: Module) -> int:
    """Bytes that the weights of `module` take once packed, at most: biases that follow from scales are not kept."""
    weight = module["weight"]
    experts: int = weight.shape[0] if weight.ndim == 3 else 1
    rows: int = -(-weight.shape[-2] // _PANEL) * _PANEL
    if "scales" not in module:
        return experts * rows * -(-int(weight.shape[-1]) // _UNIT) * _UNIT * int(weight.itemsize)
    if isinstance(module, KQuant):
        rest = sum(int(module[key].nbytes) for key in WEIGHTS if key in module) // (experts * weight.shape[-2])
        return int(experts * rows * rest)
    groups = _columns(module) // module.group_size
    numbers = groups * module["scales"].itemsize * (2 if module.mode == "affine" else 1)
    return int(experts * rows * (_columns(module) * module.bits // 8 + numbers))


def pack(module: Module, *, exact: bool) -> Module:
    """A layer that computes what `module` does, and holds its weights once; they are in memory when this returns."""
    keys = [key for key in (*WEIGHTS, "bias") if module.get(key) is not None]
    arrays = {key: module[key] for key in keys}
    mx.eval(list(arrays.values()))
    stands_for = module.kind if isinstance(module, KQuant) else type(module)
    if issubclass(stands_for, SwitchLinear | QuantizedSwitchLinear):
        experts = [{key: array[index] for key, array in arrays.items()} for index in range(arrays["weight"].shape[0])]
        return PackedExperts([_matrix(module, each) for each in experts], exact=exact)
    kind = PackedEmbedding if issubclass(stands_for, Embedding | QuantizedEmbedding) else PackedLinear
    return kind(_matrix(module, arrays), exact=exact)


def _matrix(module: Module, arrays: dict[str, mx.array]) -> Any:
    native = extension.module()
    weight, added = arrays["weight"], arrays.get("bias")
    if "scales" not in arrays:
        return native.pack_dense(weight, added)
    if isinstance(module, KQuant):
        minima, of_minima = arrays.get("minima"), arrays.get("of_minima")
        return native.pack_super(weight, arrays["scales"], minima, arrays["of_scales"], of_minima, module.bits, added)
    group, bits, mode = module.group_size, module.bits, module.mode
    return native.pack(weight, arrays["scales"], arrays.get("biases"), bits, group, mode, added)


def _product(x: mx.array, matrix: Any, exact: bool) -> mx.array:
    [product] = extension.module().products(x if x.dtype == mx.float32 else x.astype(mx.float32), [matrix], exact)
    result: mx.array = product
    return result if x.dtype == mx.float32 else result.astype(x.dtype)


def _weight(matrix: Any) -> mx.array:
    rows: mx.array = extension.module().lookup(matrix, mx.arange(matrix.rows))
    return rows


def _columns(module: Module) -> int:
    words: int = module["weight"].shape[-1]
    return words * 32 // int(module.bits)
