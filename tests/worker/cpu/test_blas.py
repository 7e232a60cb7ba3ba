"""MLX's float32 products are right, whatever this machine has. Each case has a process where mlx is not imported."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux chooses a BLAS")

PREPARE = """
import os, sys
from pathlib import Path
from squish.worker.cpu import blas
report = blas.prepare(Path(sys.argv[1]))
assert "numpy" not in sys.modules and "mlx.core" not in sys.modules
print(report.kind, "MLX_DISABLE_COMPILE" not in os.environ)
"""

PRODUCTS = """
import mlx.core as mx
import numpy as np
random = np.random.default_rng(0)
def check(m, n, k, a_transposed, b_transposed, alpha=None, beta=0.5):
    a = random.standard_normal((k, m) if a_transposed else (m, k), dtype=np.float32)
    b = random.standard_normal((n, k) if b_transposed else (k, n), dtype=np.float32)
    x, y = (mx.array(a).T if a_transposed else mx.array(a)), (mx.array(b).T if b_transposed else mx.array(b))
    expected = (a.T if a_transposed else a).astype(np.float64) @ (b.T if b_transposed else b).astype(np.float64)
    if alpha is None:
        found = x @ y
    else:
        c = random.standard_normal((m, n), dtype=np.float32)
        found, expected = mx.addmm(mx.array(c), x, y, alpha=alpha, beta=beta), alpha * expected + beta * c
    assert np.allclose(np.array(found), expected, rtol=1e-4, atol=1e-3), (m, n, k, a_transposed, b_transposed, alpha)
for m in (1, 2, 7, 8, 9, 15, 16, 17, 70):
    for n, k in ((1, 1), (3, 5), (64, 32), (65, 33), (200, 576), (1000, 301)):
        for a_transposed in (False, True):
            for b_transposed in (False, True):
                check(m, n, k, a_transposed, b_transposed)
                check(m, n, k, a_transposed, b_transposed, alpha=1.5)
wide = mx.random.normal((9, 640))
part = wide[:, 64:640]
weight = mx.random.normal((300, 576))
assert np.allclose(np.array(part @ weight.T), np.array(part) @ np.array(weight).T, atol=1e-3)
batch, weights = mx.random.normal((4, 3, 64)), mx.random.normal((4, 50, 64))
expected = np.array(batch) @ np.array(weights).swapaxes(1, 2)
assert np.allclose(np.array(batch @ weights.swapaxes(1, 2)), expected, atol=1e-3)
print("equal")
"""


def command(cache: Path, code: str) -> list[str]:
    return [sys.executable, "-c", code, str(cache)]


def environment(**changes: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SQUISH_", "OMP_", "OPENBLAS_"))}
    return {**kept, **changes}


def run(cache: Path, code: str, **changes: str) -> list[str]:
    """Lines that `code` printed in a process of its own."""
    done = subprocess.run(command(cache, code), env=environment(**changes), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def shims(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def test_products_equal_those_of_numpy_for_every_shape_and_layout(tmp_path: Path) -> None:
    assert run(tmp_path, PREPARE + PRODUCTS) == ["numpy-openblas True", "equal"]


def test_the_shim_is_compiled_once(tmp_path: Path) -> None:
    run(tmp_path / "new", PREPARE)
    (first,) = shims(tmp_path / "new")
    built = first.stat()
    run(tmp_path / "new", PREPARE)
    assert shims(tmp_path / "new") == [first]
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (built.st_ino, built.st_mtime_ns)


def test_workers_that_start_together_share_one_shim(tmp_path: Path) -> None:
    check = (
        PREPARE
        + "import mlx.core as mx\nprint(mx.ones((2, 3)).sum().item(), (mx.ones((1, 3)) @ mx.ones((3, 2))).tolist())"
    )
    with ExitStack() as ended:
        workers = [
            ended.enter_context(
                subprocess.Popen(command(tmp_path, check), env=environment(), stdout=subprocess.PIPE, text=True)
            )
            for _ in range(2)
        ]
        answers = [worker.communicate()[0].splitlines() for worker in workers]
    assert answers == [["numpy-openblas True", "6.0 [[3.0, 3.0]]"]] * 2
    assert len(shims(tmp_path)) == 1


def test_a_damaged_shim_is_replaced(tmp_path: Path) -> None:
    run(tmp_path, PREPARE)
    (shim,) = shims(tmp_path)
    shim.write_bytes(b"not a library")
    assert run(tmp_path, PREPARE) == ["numpy-openblas True"]


def test_without_a_compiler_the_products_are_right(tmp_path: Path) -> None:
    report, answer = run(tmp_path, PREPARE + PRODUCTS, PATH=str(tmp_path))
    kind, compiles = report.split()
    assert kind in ("system-openblas", "mlx")
    assert (compiles, answer) == ("False", "equal")


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run(tmp_path / "file" / "below", PREPARE)[0].split()[0] in ("mlx", "system-openblas")


def test_squish_blas_chooses_and_refuses_nonsense(tmp_path: Path) -> None:
    assert run(tmp_path, PREPARE, SQUISH_BLAS="mlx") == ["mlx True"]
    done = subprocess.run(
        command(tmp_path, PREPARE), env=environment(SQUISH_BLAS="fast"), capture_output=True, text=True, check=False
    )
    assert "SQUISH_BLAS is 'fast'; it can be auto, system or mlx." in done.stderr


def test_too_late_is_said(tmp_path: Path) -> None:
    late = "import sys, mlx.core\nfrom pathlib import Path\nfrom squish.worker.cpu import blas\n"
    assert "already imported" in run(tmp_path, late + "print(blas.prepare(Path(sys.argv[1])).reason)")[0]
