"""Layers over packed weights give the numbers of MLX's own, in a process whose BLAS reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the BLAS that reads packed weights")

PROGRAM = """
import sys
from pathlib import Path
from squish.worker.cpu import blas
assert blas.prepare(Path(sys.argv[1])).kind == "numpy-openblas"
import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from squish.worker.cpu import packed
assert packed.available()
bits, group = map(int, sys.argv[2:])
for rows, columns in ((16, 128), (65, 640), (1537, 384)):
    plain = nn.Linear(columns, rows, bias=rows == 65)
    quantized = nn.QuantizedLinear.from_linear(plain, group, bits)
    assert packed.can_pack(quantized)
    weight = mx.dequantize(quantized.weight, quantized.scales, quantized.biases, group, bits)
    size = packed.packed_bytes(quantized)
    layer = packed.pack(quantized)
    assert size == 64 + sum(layer[key].nbytes for key in ("weight", "scales", "biases"))
    for tokens in (1, 2, 4, 7, 16, 17, 70):
        x = mx.random.normal((1, tokens, columns))
        expected = x @ weight.T + (quantized.bias if rows == 65 else 0)
        assert mx.allclose(layer(x), expected, atol=1e-4), (rows, columns, tokens)
    across = mx.random.normal((columns, 24))
    assert mx.allclose(layer(across.T), across.T @ weight.T + (quantized.bias if rows == 65 else 0), atol=1e-4)
    assert not [key for key, _ in tree_flatten(layer.parameters()) if key.startswith("_")]
    original = nn.QuantizedEmbedding.from_embedding(nn.Embedding(rows, columns), group, bits)
    tied, ids, x = packed.pack(original), mx.array([[0, rows - 1, 5]]), mx.random.normal((1, 3, columns))
    assert mx.allclose(tied(ids), original(ids), atol=1e-6)
    assert mx.allclose(tied.as_linear(x), original.as_linear(x), atol=1e-3)
odd = nn.QuantizedLinear.from_linear(nn.Linear(128, 8), group, bits)
assert not packed.can_pack(odd)  # so few rows that MLX may see a vector
print("equal")
"""


@pytest.mark.parametrize(("bits", "group"), [(2, 64), (3, 32), (4, 32), (4, 128), (5, 64), (6, 64), (8, 32), (8, 64)])
def test_packed_layers_give_the_same_numbers(bits: int, group: int, real_home: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(real_home / ".squish/cache"), str(bits), str(group)]
    done = subprocess.run(
        command, env=clean_environment(real_home), capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr
