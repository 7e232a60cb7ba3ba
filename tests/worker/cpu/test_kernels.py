"""Kernels are compiled for this processor where they can be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
from squish.worker.cpu import kernels
kernels.prepare(Path(sys.argv[1]))
import mlx.core as mx
fused = mx.compile(lambda x: mx.exp(x) * mx.sigmoid(x) + 1)
x = mx.linspace(-3, 3, 1000)
assert mx.allclose(fused(x), mx.exp(x) * mx.sigmoid(x) + 1, atol=1e-4)
"""


def run(cache: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(cache)],
        env=dict(os.environ) | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_fused_kernels_are_compiled_for_this_processor_and_kept(tmp_path: Path) -> None:
    assert run(tmp_path).returncode == 0
    [folder] = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "-march=native" in (folder / "bin" / "g++").read_text()
    built = {path: path.stat().st_mtime_ns for path in folder.rglob("*.so")}
    assert built
    assert run(tmp_path).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.so")} == built


def test_without_a_compiler_or_a_home_it_still_computes(tmp_path: Path) -> None:
    done = run(tmp_path / "a", PATH="", MLX_DISABLE_COMPILE="1")
    assert done.returncode == 0, done.stderr
    (tmp_path / "file").write_text("no folder")
    assert run(tmp_path / "file").returncode == 0
