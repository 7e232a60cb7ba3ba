"""`python -m squish.worker.jobs.probe CACHE_DIR PRECISION`: what MLX computes with here, and how fast, as JSON.

It is set up as a worker is, BLAS included, and loads no model.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from squish.errors import ConfigError
from squish.system.cores import cores
from squish.system.probed import BYTES_OF_A_WEIGHT, CannotProbe, Probed
from squish.worker import descriptors
from squish.worker.cpu import failed
from squish.worker.cpu.install import CpuEngine, Precision, install, prepare

_SIDE = 1024
_ROWS = 512  # of a prompt, that the engine takes at a time
_GPU_SIDE = 4096
_SECONDS = 0.15  # for each figure: several readings, of which the best counts
_READ = 512 << 20  # bytes: more than the caches of a processor hold
_PARTS = 8  # of memory, for each core: one that is busy otherwise takes fewer


def main() -> None:
    """Probe and print. What failed to compile before is tried once more: that is what the user asks for."""
    descriptors.keep_limit()
    cache_dir = Path(sys.argv[1])
    failed.forget(cache_dir)
    try:
        found: Probed | CannotProbe = _probe(cache_dir, "float32" if sys.argv[2] == "float32" else "int8")
    except ConfigError as error:
        found = CannotProbe(error.message, f"unset {error.param}")
    sys.stdout.buffer.write(msgspec.json.encode(found))


def _probe(cache_dir: Path, precision: Precision) -> Probed:
    """Raises ConfigError for a variable of ours that is wrong."""
    report = prepare(cache_dir)
    import mlx.core as mx

    engine = install(report, cache_dir, precision)
    weights_per_ns = _weights_per_ns() if engine.kernel else 0.0
    gflops = _gflops(engine)
    return Probed(
        mlx=importlib.metadata.version("mlx"),
        device=str(mx.device_info().get("device_name", mx.default_device())),
        backend=_backend(),
        blas=engine.blas.summary,
        blas_path=str(report.path) if report.path else None,
        reason=report.reason,
        gflops=gflops,
        # Products read memory too, and may be better at it than what is made for nothing else.
        read_gbps=max(_read_gbps(), weights_per_ns * BYTES_OF_A_WEIGHT),
        most_gflops=max(gflops, _most_gflops(engine)),
        threads=engine.threads,
        precision=engine.precision,
        kernel=engine.kernel,
        kernels=_kernels() if engine.kernel else (),
        weights_per_ns=weights_per_ns,
        warnings=engine.warnings,
    )


def _kernels() -> tuple[str, ...]:
    """Those that this processor can run, the fastest first."""
    from squish.worker.cpu import extension

    return tuple(extension.module().kernels())


def _weights_per_ns() -> float:
    """4-bit weights that one row is multiplied by in a nanosecond, from more memory than caches hold."""
    import mlx.core as mx

    from squish.worker.cpu import extension

    native, side = extension.module(), 4096
    matrices = [_matrix(native, side, 4) for _ in range(16)]
    x = mx.random.normal((1, side))
    return _best(len(matrices) * side * side, lambda: mx.eval(native.products(x, matrices)))


def _matrix(native: Any, side: int, bits: int) -> Any:
    """A square one of random weights, as the extension has them: of 4 or 8 bits, or of 16."""
    import mlx.core as mx

    if bits == 16:
        return native.pack_dense(mx.random.normal((side, side)).astype(mx.float16))
    scales = (mx.random.uniform(1, 2, (side, side // 64)) / 64).astype(mx.float16)
    codes = mx.random.randint(0, 1 << 31, (side, side * bits // 32)).astype(mx.uint32)
    return native.pack(codes, scales, -8 * scales, bits, 64)


def _backend() -> str:
    import mlx.core as mx

    from squish.worker import device

    if device.on_cpu():
        return "CPU"
    return "Metal" if mx.metal.is_available() else "CUDA"


def _gflops(engine: CpuEngine) -> float:
    """10^9 operations per second of a float32 matrix product, the best of those that fit in."""
    import mlx.core as mx

    matrix = mx.random.normal((_SIDE, _SIDE))
    if engine.blas.kind != "numpy":
        return _best(2 * _SIDE**3, lambda: mx.eval(matrix @ matrix))
    from squish.worker.cpu.numpy_products import Products

    by_numpy = Products(engine.threads)
    return _best(2 * _SIDE**3, lambda: by_numpy.with_weights(matrix, matrix))


def _most_gflops(engine: CpuEngine) -> float:
    """10^9 operations per second of the fastest product of a prompt with weights, in the precision in use."""
    import mlx.core as mx

    from squish.worker import device
    from squish.worker.cpu import extension

    if not device.on_cpu():
        matrix = mx.random.normal((_GPU_SIDE, _GPU_SIDE)).astype(mx.float16)
        return _best(2 * _GPU_SIDE**3, lambda: mx.eval(matrix @ matrix))
    if not engine.kernel:
        return 0.0
    native, side = extension.module(), 2048
    x, exact = mx.random.normal((_ROWS, side)), engine.precision == "float32"

    def speed(matrix: Any) -> float:
        return _best(2 * _ROWS * side * side, lambda: mx.eval(native.products(x, [matrix], exact)))

    return max(speed(_matrix(native, side, bits)) for bits in (4, 8, 16))


def _read_gbps() -> float:
    """10^9 bytes per second that one core or all read from memory, the best of those that fit in."""
    import mlx.core as mx

    from squish.worker import device

    if not device.on_cpu():
        array = mx.ones((_READ // 4,), mx.int32)
        mx.eval(array)
        return _best(_READ, lambda: mx.eval(mx.max(array)))
    import numpy as np

    # The C library's search for a byte that is not there does nothing but read, with the processor's widest registers.
    search = ctypes.CDLL(None).memchr
    search.argtypes, search.restype = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t), ctypes.c_void_p
    whole, count = np.ones(_READ, np.uint8), cores()
    size = _READ // (count * _PARTS)
    starts = [whole.ctypes.data + part * size for part in range(count * _PARTS)]
    with ThreadPoolExecutor(count) as threads:
        together = _best(size * len(starts), lambda: list(threads.map(lambda at: search(at, 7, size), starts)))
    return max(together, _best(_READ, lambda: search(whole.ctypes.data, 7, _READ)))


def _best(count: float, run: Callable[[], object]) -> float:
    """10^9 times a second, where `run` does something `count` times: the best of the runs that fit in."""
    run()
    best, end = 0.0, time.perf_counter() + _SECONDS
    while not best or time.perf_counter() < end:
        started = time.perf_counter()
        run()
        best = max(best, count / (time.perf_counter() - started) / 1e9)
    return best


if __name__ == "__main__":
    main()
