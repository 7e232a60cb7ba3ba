"""Owns layers whose weights are GGUF's K-quants (Q2_K to Q6_K), as a model directory holds them.

MLX has no format for them: groups of 16 or 32 weights whose scales are whole numbers of 4 to 8 bits times one float16
number for 256 weights. The CPU's extension multiplies by them as they are; everywhere else `to_mlx` makes layers of
MLX's own of them. Such a directory is one that Squish's GGUF import made on a CPU: `KEY` in its config.json says which
layers these are, and of how many bits, and each has the tensors

    weight     (…, rows, columns x bits / 32) uint32, codes as MLX packs them
    scales     (…, rows, columns / 32) uint8; of 2, 3 and 6 bits (…, columns / 16): with 2 bits the minimum is in the
               high four bits, the others are signed
    minima     as scales; of 4 and 5 bits only
    of_scales  (…, rows, columns / 256) float16: what scales are multiplied by
    of_minima  the same for minima; not of 3 and 6 bits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx_lm.models.switch_layers import SwitchLinear

from squish.format.packed import K_QUANTS

KEY = K_QUANTS
BITS: Mapping[str, int] = {"Q2_K": 2, "Q3_K": 3, "Q4_K": 4, "Q5_K": 5, "Q6_K": 6}

_COLUMNS = 256  # of a block
_GROUP = 32  # of MLX's, and of 4 and 5 bits
# Bits in which MLX holds what has groups of 16: as many as the GGUF import takes.
_AGAIN = {2: 5, 3: 6, 6: 8}
_KINDS = (Linear, Embedding, SwitchLinear)


class KQuant(Module):
    """A layer of K-quants on its way to one that computes. kind: of the layer that it stands for, weights apart."""

    def __init__(self, plain: Module, bits: int) -> None:
        module_init: Any = super().__init__
        module_init()
        *leading, columns = plain["weight"].shape
        if columns % _COLUMNS:
            raise ValueError(f"{columns} columns are not whole groups of {_COLUMNS}")
        self.kind, self.bits = type(plain), bits
        small = (*leading, columns // (_GROUP if bits in (4, 5) else _GROUP // 2))
        self.weight = mx.zeros((*leading, columns * bits // 32), mx.uint32)
        self.scales = mx.zeros(small, mx.uint8)
        self.of_scales = mx.zeros((*leading, columns // _COLUMNS), mx.float16)
        if bits in (4, 5):
            self.minima = mx.zeros(small, mx.uint8)
        if bits in (2, 4, 5):
            self.of_minima = mx.zeros(self.of_scales.shape, mx.float16)
        if "bias" in plain:
            self.bias = plain["bias"]


def can_hold(module: Module) -> bool:
    """Whether the weights of a layer may be K-quants."""
    return type(module) in _KINDS


def put_into(model: Module, table: object) -> None:
    """Replace the layers that a config.json says are K-quants. Raises ValueError where it is not about this model."""
    modules = dict(cast(Any, model).named_modules())
    entries: list[tuple[Any, Any]] = list(table.items()) if isinstance(table, Mapping) else [(table, None)]
    for name, bits in entries:
        if bits not in BITS.values() or not isinstance(name, str) or not can_hold(modules.get(name, model)):
            raise ValueError(f"{KEY} has an entry for {str(name)[:80]!r} that cannot be one")
        replace(model, name, KQuant(modules[name], bits))


def classes(config: dict[str, Any], own: Callable[[dict[str, Any]], tuple[Any, Any]]) -> tuple[Any, Any]:
    """What makes a model, and the class of its arguments: `own`, with K-quants where config.json has them."""
    model_class, arguments = own(config)
    if KEY not in config:
        return model_class, arguments

    def make(given: Any) -> Module:
        model: Module = model_class(given)
        put_into(model, config[KEY])
        return model

    return make, arguments


def to_mlx(model: Module) -> None:
    """Replace all K-quants of a model by layers of MLX's that are quantized; nothing is evaluated."""
    for name, module in list(cast(Any, model).named_modules()):
        if isinstance(module, KQuant):
            replace(model, name, _quantized(module))


def replace(model: Module, name: str, layer: Module) -> None:
    """Put `layer` where the module called `name` ("layers.3.mlp") is."""
    holder: Any = model
    *way, last = name.split(".")
    for step in way:
        holder = holder[int(step)] if isinstance(holder, list) else holder[step]
    holder[int(last) if isinstance(holder, list) else last] = layer


def _quantized(module: KQuant) -> Module:
    """With codes of 4 and 5 bits the weights stay what they are, up to the rounding of scales to float16."""
    scale, bias = _scales(module)
    plain: Any = module.kind.__new__(module.kind)
    module_init: Any = Module.__init__
    module_init(plain)
    ones = mx.ones((*scale.shape[:-1], module.weight.shape[-1] // module.bits))
    codes = mx.dequantize(module.weight, ones, mx.zeros_like(ones), group_size=_GROUP, bits=module.bits)
    groups = codes.reshape(*scale.shape, -1)
    values = groups * scale[..., None] + bias[..., None]
    plain.weight = values.reshape(codes.shape).astype(mx.float16)
    if "bias" in module:
        plain.bias = module["bias"]
    quantized = plain.to_quantized(group_size=_GROUP, bits=_AGAIN.get(module.bits, module.bits))
    if module.bits not in _AGAIN:
        quantized.weight = module.weight
        quantized.scales, quantized.biases = scale.astype(mx.float16), bias.astype(mx.float16)
    return cast(Module, quantized)


def _scales(module: KQuant) -> tuple[mx.array, mx.array]:
    """Scale and bias of each group, float32."""
    small = module.scales
    each = small.shape[-1] // module.of_scales.shape[-1]
    d = mx.repeat(module.of_scales.astype(mx.float32), each, axis=-1)
    if module.bits in (3, 6):
        scale = d * small.view(mx.int8)
        return scale, scale * -(1 << module.bits - 1)
    m = mx.repeat(module.of_minima.astype(mx.float32), each, axis=-1)
    if module.bits == 2:
        return d * (small & 15), -m * (small >> 4)
    return d * small, -m * module.minima
