"""Layers over packed weights give the numbers of MLX's own, and hold the bytes of the file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.worker.cpu.test_products import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the extension is for Linux")

PROGRAM = """
import sys
from pathlib import Path
import mlx.core as mx
from mlx import nn
from mlx_lm.models.switch_layers import SwitchLinear
from squish.worker.cpu import extension, layers
assert extension.open_extension(Path(sys.argv[1])).module is not None
mx.random.seed(0)

def close(found, expected, most):
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert mx.abs(found - expected).max() <= most * mx.abs(expected).max(), mx.abs(found - expected).max()

def of_floats(module, kind):
    module.set_dtype(kind)
    return module

MODES = [("affine", 32, 4), ("affine", 64, 6), ("affine", 128, 3), ("mxfp4", 32, 4), ("nvfp4", 16, 4), ("mxfp8", 32, 8)]
LINEAR = [(of_floats(nn.Linear(192, 83), kind), kind) for kind in (mx.float32, mx.float16, mx.bfloat16)]
LINEAR += [(of_floats(nn.Linear(77, 40, bias=False), mx.float16), mx.float16)]
for mode, group, bits in MODES:
    LINEAR.append((nn.QuantizedLinear.from_linear(nn.Linear(384, 83), group, bits, mode=mode), None))
for original, _ in LINEAR:
    assert layers.can_pack(original)
    x = mx.random.normal((2, 5, original.weight.shape[1] if "scales" not in original else 384))
    expected = original(x.astype(mx.float32))
    size = layers.packed_bytes(original)
    for exact in (True, False):
        layer = layers.pack(original, exact=exact)
        close(layer(x), expected, 2e-3 if exact else 0.03)
        assert layer.packed.nbytes <= size
        assert layer(x.astype(mx.float16)).dtype == mx.float16
    numbers = original.weight if "scales" not in original else mx.dequantize(
        original.weight, original.scales, original.get("biases"), original.group_size, original.bits, original.mode)
    assert mx.array_equal(layer.weight, numbers.astype(mx.float32))

table = nn.Embedding(1000, 64)
tables = [nn.QuantizedEmbedding.from_embedding(nn.Embedding(1000, 128), g, b, mode=m) for m, g, b in MODES]
for original in (table, *tables):
    layer, ids = layers.pack(original, exact=True), mx.array([[0, 999], [5, 5]])
    close(layer(ids), original(ids), 1e-6)
    x = mx.random.normal((3, original(ids).shape[-1]))
    close(layer.as_linear(x), original.as_linear(x), 1e-5)

choice = mx.random.randint(0, 7, (2, 5, 3))
for bias in (True, False):
    plain = SwitchLinear(96, 40, 7, bias=bias)
    for original in (plain, *(plain.to_quantized(g, b, m) for m, g, b in [("affine", 32, 4), ("mxfp4", 32, 4)])):
        if bias:
            original.bias = mx.random.normal((7, 40))
        layer = layers.pack(original, exact=True)
        assert sum(each.nbytes for each in layer.packed) <= layers.packed_bytes(original)
        shared, own = mx.random.normal((2, 5, 1, 1, 96)), mx.random.normal((2, 5, 3, 1, 96))
        for x in (shared, own):
            expected = original(x, choice)
            close(layer(x, choice), expected, 1e-5)
        flat = mx.sort(choice.flatten())
        rows = mx.random.normal((30, 1, 96))
        close(layer(rows, flat, sorted_indices=True), original(rows, flat, sorted_indices=True), 1e-5)
        narrow = layers.pack(original, exact=False)
        alone = mx.concatenate([narrow(own[:, i : i + 1], choice[:, i : i + 1]) for i in range(5)], axis=1)
        assert mx.array_equal(narrow(own, choice), alone)
print("right")
"""


def test_layers_give_the_numbers_of_mlx(real_home: Path) -> None:
    assert run(PROGRAM, real_home).split() == ["right"]
