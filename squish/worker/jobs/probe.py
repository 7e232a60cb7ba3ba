"""`python -m squish.worker.probe CACHE_DIR`: what MLX computes with on this machine, and how fast, as one JSON object.

It is set up as a worker is, BLAS included, and loads no model.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from squish.system.probed import Probed
from squish.worker import descriptors
from squish.worker.cpu.install import install, prepare

_SIDE = 1024
_SECONDS = 0.15  # for each figure: several readings, of which the best counts
_READ = 512 << 20  # bytes: more than the caches of a processor hold


def main() -> None:
    """Probe and print."""
    descriptors.keep_limit()
    cache_dir = Path(sys.argv[1])
    report = prepare(cache_dir)
    import mlx.core as mx

    engine = install(report, cache_dir)

    probed = Probed(
        mlx=importlib.metadata.version("mlx"),
        device=str(mx.device_info().get("device_name", mx.default_device())),
        backend=_backend(),
        blas=report.summary,
        blas_path=str(report.path) if report.path else None,
        reason=report.reason,
        gflops=_gflops(),
        read_gbps=_read_gbps(),
        kernel=engine.kernel,
        kernels=_kernels() if engine.kernel else (),
        weights_per_ns=_weights_per_ns() if engine.kernel else 0.0,
        warnings=engine.warnings,
    )
    sys.stdout.buffer.write(msgspec.json.encode(probed))


def _kernels() -> tuple[str, ...]:
    """Those that this processor can run, the fastest first."""
    from squish.worker.cpu import extension

    return tuple(extension.module().kernels())


def _weights_per_ns() -> float:
    """4-bit weights that one row is multiplied by in a nanosecond, from more memory than caches hold."""
    import mlx.core as mx

    from squish.worker.cpu import extension

    native, rows, columns = extension.module(), 4096, 4096
    scales = (mx.random.uniform(1, 2, (rows, columns // 64)) / 64).astype(mx.float16)
    codes = mx.random.randint(0, 1 << 31, (rows, columns // 8)).astype(mx.uint32)
    matrices = [native.pack(codes, scales, -8 * scales, 4, 64) for _ in range(16)]
    x = mx.random.normal((1, columns))
    seconds = _READ / 1e9 / _fastest(lambda: mx.eval(native.products(x, matrices)))
    return len(matrices) * rows * columns / seconds / 1e9


def _backend() -> str:
    import mlx.core as mx

    from squish.worker import device

    if device.on_cpu():
        return "CPU"
    return "Metal" if mx.metal.is_available() else "CUDA"


def _gflops() -> float:
    """10^9 operations per second of a float32 matrix product, the best of those that fit in."""
    import mlx.core as mx

    matrix = mx.random.normal((_SIDE, _SIDE))
    mx.eval(matrix @ matrix)
    best, end = 0.0, time.perf_counter() + _SECONDS
    while not best or time.perf_counter() < end:
        started = time.perf_counter()
        mx.eval(matrix @ matrix)
        best = max(best, 2 * _SIDE**3 / (time.perf_counter() - started) / 1e9)
    return best


def _read_gbps() -> float:
    """10^9 bytes per second that one core or all read from memory, the best of those that fit in."""
    import mlx.core as mx

    from squish.worker import device

    if not device.on_cpu():
        array = mx.ones((_READ // 4,), mx.int32)
        mx.eval(array)
        return _fastest(lambda: mx.eval(mx.max(array)))
    import numpy as np

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    whole = np.ones(_READ // 8, np.int64)
    parts = np.array_split(whole, cores)
    with ThreadPoolExecutor(cores) as threads:
        together = _fastest(lambda: sum(threads.map(np.max, parts)))
    return max(together, _fastest(whole.max))


def _fastest(read: Callable[[], object]) -> float:
    best, end = 0.0, time.perf_counter() + _SECONDS
    while not best or time.perf_counter() < end:
        started = time.perf_counter()
        read()
        best = max(best, _READ / (time.perf_counter() - started) / 1e9)
    return best


if __name__ == "__main__":
    main()
