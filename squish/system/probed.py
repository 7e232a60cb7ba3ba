"""What a probe of MLX found: the one value that crosses from `squish.worker.jobs.probe` to `squish doctor`, as JSON."""

from __future__ import annotations

import msgspec


class Probed(msgspec.Struct, frozen=True):
    """backend: Metal, CUDA or CPU. gflops: float32 matrix products. blas_path: None where nothing was opened.

    read_gbps: 10^9 bytes a second of a plain read of memory by all cores, or the GPU. kernel: of the CPU's extension,
    "" where it is not in use; kernels: those the processor can run; weights_per_ns: of 4 bits, multiplied by one row.
    """

    mlx: str
    device: str
    backend: str
    blas: str
    blas_path: str | None
    reason: str
    gflops: float
    read_gbps: float = 0.0
    kernel: str = ""
    kernels: tuple[str, ...] = ()
    weights_per_ns: float = 0.0
    warnings: tuple[str, ...] = ()
