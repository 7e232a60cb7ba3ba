"""What a probe of MLX found: the one value that crosses from `squish.worker.jobs.probe` to `squish doctor`, as JSON."""

from __future__ import annotations

import msgspec

BYTES_OF_A_WEIGHT = 4.5 / 8
"""Of 4 bits, with its share of a scale and a bias."""


class Slower(msgspec.Struct, frozen=True):
    """Why models run slower here than they could, and what helps; remedy is "" where nothing is known."""

    reason: str
    remedy: str = ""

    @property
    def sentence(self) -> str:
        """Both, for people."""
        return f"{self.reason} {self.remedy}." if self.remedy else self.reason


class CannotProbe(msgspec.Struct, frozen=True, tag=True):
    """Why nothing could be measured, and what helps."""

    reason: str
    remedy: str


class Probed(msgspec.Struct, frozen=True, tag=True):
    """backend: Metal, CUDA or CPU. blas_path: None where nothing was opened. precision: of products with weights.

    gflops: 10^9 operations a second of the float32 product of two activations. most_gflops: of the fastest product with
    weights in that precision, which no prompt of a model exceeds. read_gbps: 10^9 bytes a second that all cores, or the
    GPU, read from memory at most. threads: at most, in one product; 0 where that is MLX's business. kernel: of the
    CPU's extension, "" where it is not in use; kernels: those the processor can run; weights_per_ns: of 4 bits,
    multiplied by one row.
    """

    mlx: str
    device: str
    backend: str
    blas: str
    blas_path: str | None
    reason: str
    gflops: float
    read_gbps: float = 0.0
    most_gflops: float = 0.0
    threads: int = 0
    precision: str = "float32"
    kernel: str = ""
    kernels: tuple[str, ...] = ()
    weights_per_ns: float = 0.0
    warnings: tuple[Slower, ...] = ()
