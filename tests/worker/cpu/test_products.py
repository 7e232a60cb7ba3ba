"""Products with packed matrices: right, and the same for every batch, thread and instruction set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the extension is for Linux")

PROGRAM = """
import sys
from pathlib import Path
import mlx.core as mx
from squish.worker.cpu import extension
native = extension.open_extension(Path(sys.argv[1])).module
assert native is not None
mx.random.seed(1)
for bits in (2, 3, 4, 5, 6, 8):
    for group in (32, 64, 128):
        for dtype in (mx.float32, mx.float16, mx.bfloat16):
            weight, scales, biases = mx.quantize(mx.random.normal((83, 384)).astype(dtype), group, bits)
            if group == 32:  # as Q4_0, Q5_0 and Q8_0 are: the biases need no memory
                biases = scales * -(1 << bits - 1)
            matrix = native.pack(weight, scales, biases, bits, group)
            numbers = 96 * 384 // group * scales.itemsize
            assert matrix.nbytes - 96 * 384 * bits // 8 in ((numbers,) if group == 32 else (numbers, 2 * numbers))
            numbers = [each.astype(mx.float32) for each in (scales, biases)]
            plain = mx.dequantize(weight, *numbers, group, bits)
            x = mx.random.normal((300, 384))
            expected = x @ plain.T
            results = []
            for threads in (1, 2):
                native.set_threads(threads)
                for m in (1, 2, 7, 8, 9, 64, 300):
                    parts = [native.products(x[i : i + m], [matrix])[0] for i in range(0, 300, m)]
                    results.append(mx.concatenate(parts))
            assert all(mx.array_equal(results[0], each) for each in results), (bits, group, dtype)
            assert mx.abs(results[0] - expected).max() < 0.02 * mx.abs(expected).max(), (bits, group, dtype)
            print(bits, group, hash(bytes(memoryview(results[0]))))
"""


def test_every_kernel_gives_the_numbers_of_the_reference_for_every_batch(real_home: Path) -> None:
    listing = "import sys; from pathlib import Path; from squish.worker.cpu import extension; "
    listing += "print(*extension.open_extension(Path(sys.argv[1])).module.kernels())"
    names = run(listing, real_home).split()
    assert names[-1] == "portable" and len(names) > 1
    assert len({run(PROGRAM, real_home, SQUISH_CPU_KERNEL=name) for name in names}) == 1


def run(program: str, home: Path, **variables: str) -> str:
    command = [sys.executable, "-c", program, str(home / ".squish" / "cache")]
    environment = dict(os.environ) | {"PYTHONHASHSEED": "0"} | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
