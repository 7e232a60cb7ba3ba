"""What MLX computes with, and how fast. It imports no MLX: a process that is set up as a worker is measures it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import msgspec

from squish.config.settings import Settings
from squish.doctor.finding import Finding
from squish.format.architectures import USUAL_KV_BITS
from squish.system.host import HOST
from squish.system.probed import BYTES_OF_A_WEIGHT, CannotProbe, Probed
from squish.text import clean

_PROBE_SECONDS = 600  # the engine may have to be compiled first, beside other work
_SLOW_GFLOPS = 12.0
"""Per second on one core; the reference BLAS stays below it, every optimized one is above."""
_GET_COMPILER = "Debian, Ubuntu: sudo apt-get install g++"


def engine(settings: Settings) -> Iterator[Finding]:
    """MLX, its device and its matrix products."""
    probed = probe(settings)
    if isinstance(probed, CannotProbe):
        yield Finding("MLX", "broken", probed.reason, probed.remedy)
        return
    yield Finding("MLX", "ok", f"{probed.mlx} on {probed.backend}: {probed.device}")
    if probed.kernel:
        yield Finding("CPU engine", "ok", _cpu_engine(settings, probed))
    for warning in probed.warnings:
        yield Finding("CPU engine", "warning", warning.reason, warning.remedy or None)
    speed = f"{probed.blas}: {probed.gflops:.0f} GFLOP/s"
    where = f" ({probed.reason}: {probed.blas_path})" if probed.blas_path else ""
    # Beside the engine these products are few; without it all are of this kind, and there is a warning already.
    if probed.backend == "CPU" and probed.gflops < _SLOW_GFLOPS and not (probed.kernel or probed.warnings):
        yield Finding("matrices", "warning", f"{speed}{where}; that is slow", "look for busy programs: top")
    else:
        yield Finding("matrices", "ok", f"{'products without weights, ' if probed.kernel else ''}{speed}{where}")
    yield from _compiler(probed)


def _compiler(probed: Probed) -> Iterator[Finding]:
    """Whether MLX can fuse operations on a CPU. One that is missing is warned of only once."""
    if probed.backend != "CPU" or not HOST.COMPILES:
        return
    if found := shutil.which("g++"):
        yield Finding("compiler", "ok", found)
    elif probed.kernel:
        yield Finding("compiler", "ok", "g++ is not installed, and the CPU engine came compiled")
    elif not probed.warnings:
        yield Finding(
            "compiler", "warning", "g++ is not installed: MLX cannot fuse kernels and is slower", _GET_COMPILER
        )


def _cpu_engine(settings: Settings, probed: Probed) -> str:
    """What multiplies by weights, how precisely, how fast, and what it could do at most."""
    bits = USUAL_KV_BITS if settings.kv_bits == "auto" else settings.kv_bits
    threads = f"{probed.threads} thread{'s' if probed.threads > 1 else ''}"
    kind = f"{probed.kernel}, {probed.precision}, {threads}, {bits}-bit KV cache"
    reached = probed.weights_per_ns * BYTES_OF_A_WEIGHT
    decoding = f"{probed.weights_per_ns:.1f} 4-bit weights a nanosecond"
    memory = f"{reached:.1f} of the {probed.read_gbps:.1f} GB/s that a plain read of memory reaches"
    others = ", ".join(name for name in probed.kernels if name != probed.kernel)
    return f"{kind}: {decoding}, {memory}; {probed.most_gflops:.0f} GFLOP/s of a prompt at most (can also run {others})"


def probe(settings: Settings) -> Probed | CannotProbe:
    """What MLX computes with, measured in a process of its own."""
    arguments = (str(settings.worker_cache), settings.cpu_precision)
    command = [sys.executable, "-P", "-m", "squish.worker.jobs.probe", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return CannotProbe(f"MLX did not answer within {_PROBE_SECONDS} s.", "look for busy programs: top")
    reinstall = f"{sys.executable} -m pip install --force-reinstall mlx"
    if done.returncode == 0:
        try:
            found: Probed | CannotProbe = msgspec.json.decode(done.stdout, type=Probed | CannotProbe)
        except ValueError:
            return CannotProbe("MLX gave an answer that cannot be read.", reinstall)
        if isinstance(found, Probed):
            return found
        return CannotProbe(f"MLX cannot be used: {found.reason}", found.remedy)
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    reason = clean(last[0]) if last else f"exit code {done.returncode}"
    return CannotProbe(f"MLX cannot be used: {reason}", reinstall)
