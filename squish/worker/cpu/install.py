"""Owns what is replaced in MLX where a model computes on a CPU: `prepare`, `install`, `prepare_model`, in this order.

docs/architecture.md has the table of what is replaced, why, and how it is tested. On a GPU nothing of MLX is.
Nobody else calls the parts.
"""

from __future__ import annotations

import atexit
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from squish.format.architectures import USUAL_KV_BITS
from squish.system.cores import cores
from squish.system.host import HOST
from squish.system.probed import Slower
from squish.worker.cpu import blas, kernels

if TYPE_CHECKING:
    from squish.worker.cpu.extension import Opened

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
    warnings: tuple[Slower, ...] = ()
    on_cpu: bool = True

    @property
    def multiplies(self) -> tuple[str, str]:
        """What multiplies by weights on a CPU, and how precisely; "" and "" on a GPU."""
        return (self.kernel or self.blas.kind, self.precision) if self.on_cpu else ("", "")

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
    """Whether `install` will compile the extension, which takes a minute or two, once on a machine."""
    from squish.worker.cpu import extension

    return extension.must_be_compiled(cache_dir)


def install(report: blas.BlasReport, cache_dir: Path, precision: Precision = "int8") -> CpuEngine:
    """Replace MLX's functions in this process. Call it once, before a model is loaded.

    Raises ConfigError for a SQUISH_CPU_KERNEL that cannot be used.
    """
    from squish.worker import device
    from squish.worker.cpu import attention, extension, functions, rotary

    if not device.on_cpu():
        return CpuEngine(report, threads=report.threads, on_cpu=False)
    opened = extension.open_extension(cache_dir)
    if opened.module is not None:
        functions.use(opened.module)
        return CpuEngine(report, opened.module.kernel(), precision, opened.module.threads())
    if report.kind == "mlx" and blas.chosen() == "auto":
        from squish.worker.cpu import numpy_products

        report = replace(report, kind="numpy", threads=cores())
        numpy_products.use(report.threads)
    else:
        attention.use_fused_attention()
    rotary.use_short_rotation()
    return CpuEngine(report, threads=report.threads, warnings=_slower(report, opened))


def _slower(report: blas.BlasReport, opened: Opened) -> tuple[Slower, ...]:
    """One reason where models could run faster on this machine: why they do not, what multiplies, and what helps."""
    much = "many times slower" if report.kind == "mlx" else "slower"
    how = f"models run {much}, in float32 through {report.library}"
    if opened.reason:
        return (Slower(f"The CPU engine is not in use ({opened.reason}), so {how}.", opened.remedy),)
    return (Slower(f"{how[0].upper()}{how[1:]} ({report.reason}).", report.remedy),) if report.kind == "mlx" else ()


def prepare_model(model: Any, kv_bits: int | None = None) -> bool:
    """Put a loaded model's layers together where that is possible; its weights must be in memory.

    kv_bits: of a number in its KV cache, where its layers are put together; None: USUAL_KV_BITS. Returns whether no
    number of an answer depends any more on who else is answered, or on where a prompt is cut.
    """
    from squish.worker import device
    from squish.worker.cpu import extension, fusion

    native = extension.module()
    if native is None or not device.on_cpu():
        return False
    return fusion.fuse(model, native, kv_bits or USUAL_KV_BITS) and fusion.same_in_any_company(model)
