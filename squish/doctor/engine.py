"""What MLX computes with, and how fast. It imports no MLX: a process that is set up as a worker is measures it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import msgspec

from squish.config.settings import Settings
from squish.doctor.computer import GET_COMPILER
from squish.doctor.finding import Finding
from squish.format.architectures import USUAL_KV_BITS
from squish.system.probed import Probed
from squish.text import clean

_PROBE_SECONDS = 120
_SLOW_GFLOPS = 12.0
"""Per second on one core; the reference BLAS stays below it, every optimized one is above."""


def engine(settings: Settings) -> Iterator[Finding]:
    """MLX, its device and its matrix products."""
    probed = probe(settings)
    if isinstance(probed, str):
        fix = f"{sys.executable} -m pip install --force-reinstall mlx"
        yield Finding("MLX", "broken", probed, "unset SQUISH_BLAS" if "SQUISH_BLAS" in probed else fix)
        return
    yield Finding("MLX", "ok", f"{probed.mlx} on {probed.backend}: {probed.device}")
    if probed.kernel:
        reached = probed.weights_per_ns * 4.5 / 8  # bytes, scales included
        limit = f"{reached:.1f} of the {probed.read_gbps:.1f} GB/s that a plain read of memory reaches"
        fact = f"{probed.weights_per_ns:.1f} 4-bit weights a nanosecond, {limit}"
        others = ", ".join(name for name in probed.kernels if name != probed.kernel)
        bits = USUAL_KV_BITS if settings.kv_bits == "auto" else settings.kv_bits
        kind = f"{probed.kernel}, {settings.cpu_precision}, {bits}-bit KV cache"
        yield Finding("CPU engine", "ok", f"{kind}: {fact} (can also run {others})")
    speed = f"{probed.blas}: {probed.gflops:.0f} GFLOP/s"
    where = f" ({probed.reason}: {probed.blas_path})" if probed.blas_path else ""
    slow = probed.backend == "CPU" and probed.gflops < _SLOW_GFLOPS
    for warning in probed.warnings:
        needed = None if shutil.which("g++") else GET_COMPILER
        yield Finding("matrices", "warning", f"{speed}{where}. {warning}", needed)
    if slow and not probed.warnings:
        yield Finding("matrices", "warning", f"{speed}{where}; that is slow", "look for busy programs: top")
    elif not probed.warnings:
        yield Finding("matrices", "ok", speed + where)


def probe(settings: Settings) -> Probed | str:
    """What MLX computes with, measured in a process of its own; a sentence when that fails."""
    command = [sys.executable, "-P", "-m", "squish.worker.jobs.probe", str(settings.worker_cache)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"MLX did not answer within {_PROBE_SECONDS} s."
    if done.returncode == 0:
        try:
            return msgspec.json.decode(done.stdout, type=Probed)
        except ValueError:
            return "MLX gave an answer that cannot be read."
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    reason = clean(last[0]).removeprefix("squish.errors.ConfigError: ") if last else f"exit code {done.returncode}"
    return f"MLX cannot be used: {reason}"
