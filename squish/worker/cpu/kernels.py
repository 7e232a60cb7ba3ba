"""Owns how MLX's CPU backend compiles what it fuses. It knows nothing of what is computed.

MLX compiles fused kernels with `g++ -O3` while the program runs, for the oldest processor there is. Compiled for this
one they take a third of the time (exp of a million numbers: 4.5 ms instead of 17), so a `g++` that adds `-march=native`
is put before the real one. It changes nothing on a GPU.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from squish.files import write_whole
from squish.worker.cpu.blas import cpu_identity

_SPACE = 64 << 20  # bytes that must be free for compiled kernels; on a full disk MLX does without


def prepare(cache_dir: Path) -> None:
    """Give MLX a folder of our own for compiled kernels, and a compiler that knows this processor.

    Call it before anything imports mlx.core. The folder is private: MLX's default is one in /tmp that anybody may fill.
    """
    compiler = shutil.which("g++")
    identity = hashlib.sha256(f"{compiler}\0{cpu_identity()}".encode()).hexdigest()[:16]
    folder = cache_dir / f"kernels-{identity}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if shutil.disk_usage(folder).free < _SPACE:
            os.environ["MLX_DISABLE_COMPILE"] = "1"
            return
        os.environ["TMPDIR"] = str(folder)
        script = folder / "bin" / "g++"
        if compiler and (script.exists() or _knows_native(compiler)):  # asked once, and not by every worker
            _put_before(Path(compiler), script)
    except OSError:
        pass  # a home that cannot be written to: MLX does it its own way


def _knows_native(compiler: str) -> bool:
    command = [compiler, "-march=native", "-E", "-x", "c++", os.devnull, "-o", os.devnull]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _put_before(compiler: Path, script: Path) -> None:
    """A `g++` in this place, and its folder first in PATH."""
    script.parent.mkdir(exist_ok=True)
    if not script.exists():
        # Whole or absent: another worker may be starting it at this moment.
        write_whole(script, f'#!/bin/sh\nexec "{compiler}" -march=native "$@"\n', mode=0o755)
    os.environ["PATH"] = f"{script.parent}{os.pathsep}{os.environ.get('PATH', '')}"
