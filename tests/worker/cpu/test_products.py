"""Products with packed matrices: right, and the same for every batch, thread and instruction set."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest

from tests.worker.cpu.opened import native

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the extension is for Linux")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    kernel, threads = native().kernel(), native().threads()
    yield
    native().use_kernels(kernel)
    native().set_threads(threads)


MATRIX = itertools.product([2, 3, 4, 5, 6, 8], [32, 64, 128], [mx.float32, mx.float16, mx.bfloat16])


@pytest.mark.parametrize(
    ("bits", "group", "dtype"),
    [
        pytest.param(
            *(bits, group, dtype),
            marks=() if bits == 4 or (group, dtype) == (64, mx.bfloat16) else pytest.mark.long,
        )
        for bits, group, dtype in MATRIX
    ],
    ids=str,
)
def test_every_kernel_gives_the_numbers_of_the_reference_for_every_batch(
    bits: int, group: int, dtype: mx.Dtype
) -> None:
    mx.random.seed(bits + group)
    weight, scales, biases = mx.quantize(mx.random.normal((83, 384)).astype(dtype), group, bits)
    if group == 32:  # as Q4_0, Q5_0 and Q8_0 are: the biases need no memory
        biases = scales * -(1 << bits - 1)
    matrix = native().pack(weight, scales, biases, bits, group)
    numbers = 96 * 384 // group * scales.itemsize
    assert matrix.nbytes - 96 * 384 * bits // 8 in ((numbers,) if group == 32 else (numbers, 2 * numbers))
    wide = scales.astype(mx.float32), biases.astype(mx.float32)
    plain = mx.dequantize(weight, *wide, group_size=group, bits=bits)
    x = with_peaks(mx.random.normal((300, 384)))
    expected = x @ plain.T
    reference = multiplied(x, matrix, "portable", 1, 64)
    assert mx.abs(reference - expected).max() < 0.02 * mx.abs(expected).max()
    for name in native().kernels():
        for threads in (1, 2):
            for rows in (1, 2, 7, 8, 9, 64, 300) if name != "portable" else (9,):
                found = multiplied(x, matrix, name, threads, rows)
                assert mx.array_equal(found, reference), (name, threads, rows)


def with_peaks(x: mx.array) -> mx.array:
    """In most rows some numbers are much larger than the others, a different number of them in each."""
    rows, columns = x.shape
    large = mx.random.uniform(shape=x.shape) < (mx.arange(rows) % 5 / columns)[:, None]
    return mx.where(large, 40 * x, x)


def multiplied(x: mx.array, matrix: object, kernel: str, threads: int, rows: int) -> mx.array:
    """So many rows at a time."""
    native().use_kernels(kernel)
    native().set_threads(threads)
    parts = [native().products(x[i : i + rows], [matrix])[0] for i in range(0, len(x), rows)]
    together = mx.concatenate(parts)
    mx.eval(together)
    return together


def test_the_environment_chooses_the_kernels(real_home: Path) -> None:
    program = "import sys; from pathlib import Path; from squish.worker.cpu import extension; "
    program += "print(extension.open_extension(Path(sys.argv[1])).module.kernel())"
    assert run(program, real_home, SQUISH_CPU_KERNEL="portable").split() == ["portable"]


def run(program: str, home: Path, **variables: str) -> str:
    command = [sys.executable, "-c", program, str(home / ".squish" / "cache")]
    environment = dict(os.environ) | {"PYTHONHASHSEED": "0"} | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
