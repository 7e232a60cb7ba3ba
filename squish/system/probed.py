"""What a probe of MLX found: the one value that crosses from `squish.worker.jobs.probe` to `squish doctor`, as JSON."""

from __future__ import annotations

import msgspec


class Probed(msgspec.Struct, frozen=True):
    """backend: Metal, CUDA or CPU. gflops: float32 matrix products. blas_path: None where nothing was opened."""

    mlx: str
    device: str
    backend: str
    blas: str
    blas_path: str | None
    reason: str
    gflops: float
    warnings: tuple[str, ...] = ()
