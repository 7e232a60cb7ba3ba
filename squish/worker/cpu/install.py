"""Owns what is replaced in MLX where a model computes on a CPU: `prepare`, `install`, `prepare_model`, in this order.

docs/architecture.md has the table of what is replaced, why, and how it is tested. On a GPU nothing of MLX is.
Nobody else calls the parts.
"""

from __future__ import annotations

import atexit
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from squish.format.architectures import USUAL_KV_BITS
from squish.system.host import HOST
from squish.worker.cpu import blas, kernels

Precision = Literal["int8", "float32"]


@dataclass(frozen=True, slots=True)
class CpuEngine:
    """What computes in this process. kernel: of the extension, "" where it is not in use; then precision is float32.

    threads: at most, in one product; 0 is MLX's business.
    """

    blas: blas.BlasReport
    kernel: str = ""
    precision: Precision = "float32"
    threads: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for people: what multiplies, how precisely, with how many threads."""
        if not self.kernel:
            return self.blas.summary
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        return f"{self.kernel} kernels, {self.precision} products{threads}"


def prepare(cache_dir: Path) -> blas.BlasReport:
    """Set up what must be there before anything imports mlx.core. Raises ConfigError for a wrong SQUISH_BLAS.

    Call it in the thread that will compute, the main thread: MLX's streams end with it.
    """
    atexit.register(_end_streams)
    if HOST.COMPILES:
        kernels.prepare(cache_dir)
    return blas.prepare(cache_dir)


def _end_streams() -> None:
    """Without it a process that has computed may abort while it exits."""
    if mlx := sys.modules.get("mlx.core"):
        mlx.clear_streams()


def compiles_first(cache_dir: Path) -> bool:
    """Whether `install` will compile the extension, which takes half a minute, once on a machine."""
    from squish.worker.cpu import extension

    return extension.must_be_compiled(cache_dir)


def install(report: blas.BlasReport, cache_dir: Path, precision: Precision = "int8") -> CpuEngine:
    """Replace MLX's functions in this process. Call it once, before a model is loaded."""
    import mlx.core as mx

    from squish.worker.cpu import attention, extension, functions, rotary

    if mx.default_device() != mx.Device(mx.cpu):
        return CpuEngine(report, threads=report.threads, warnings=report.warnings)
    opened = extension.open_extension(cache_dir)
    warnings = (*report.warnings, *([opened.warning] if opened.warning else []))
    if opened.module is None:
        attention.use_fused_attention()
        rotary.use_short_rotation()
        return CpuEngine(report, threads=report.threads, warnings=warnings)
    functions.use(opened.module)
    return CpuEngine(report, opened.module.kernel(), precision, opened.module.threads(), warnings)


def prepare_model(model: Any, kv_bits: int | None = None) -> bool:
    """Put a loaded model's layers together where that is possible; its weights must be in memory.

    kv_bits: of a number in its KV cache, where its layers are put together; None: USUAL_KV_BITS. Returns whether no
    number of an answer depends any more on who else is answered, or on where a prompt is cut.
    """
    import mlx.core as mx

    from squish.worker.cpu import extension, fusion

    native = extension.module()
    if native is None or mx.default_device() != mx.Device(mx.cpu):
        return False
    return fusion.fuse(model, native, kv_bits or USUAL_KV_BITS) and fusion.same_in_any_company(model)
