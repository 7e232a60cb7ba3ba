"""Owns which BLAS does MLX's float32 matrix products on a CPU. It knows no models, and imports neither mlx nor numpy.

MLX's Linux wheel is linked to the reference BLAS: about 4 GFLOP/s. The first library to define `cblas_sgemm` in the
global scope before `import mlx.core` wins, so `prepare` opens, first that works:

1. shim.c, compiled once, over the OpenBLAS in numpy's wheel: own kernels for up to 16 rows (decode), OpenBLAS above;
2. a system OpenBLAS (`libopenblas.so.0`), which needs no compiler;
3. nothing: MLX keeps its own. Without the extension, install.py then lets numpy multiply (numpy_products.py).

Threads: one row of decode is bound by memory, so it gets half of the cores; batches and prefill get all. The kernels'
threads sleep while they wait and take small chunks: a busy neighbor slows them down, where OpenBLAS's spinning threads
stall (25 and 2 tok/s were measured side by side). Where the user has set OMP_WAIT_POLICY or OPENBLAS_NUM_THREADS, that
stands.

SQUISH_BLAS is for diagnosis: `auto` (default), `system` (skip 1) or `mlx` (skip 1 and 2).
float16, bfloat16 and quantized products do not go through BLAS at all; see load.py.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from squish.errors import ConfigError
from squish.files import move_whole
from squish.system.accelerator import has_cuda
from squish.system.cores import cores
from squish.system.host import HOST
from squish.text import whole
from squish.worker.cpu import failed

Kind = Literal["numpy-openblas", "system-openblas", "numpy", "mlx", "accelerate", "cuda"]

_COMPILE_SECONDS = 60
_UPDATE = f"Update the compiler; {failed.TRIED_AGAIN}"
# How often a thread looks for work before it sleeps, a few µs in all: the next product of a decoding step is often that
# near. Eight streams are a twentieth faster; ten times as often costs a third on a busy machine.
_SPINS = "300"
_LIBRARIES: dict[Kind, str] = {
    "numpy-openblas": "numpy's OpenBLAS",
    "system-openblas": "the system's OpenBLAS",
    "numpy": "numpy",
    "mlx": "MLX's own BLAS",
}


@dataclass(frozen=True, slots=True)
class BlasReport:
    """kind and path: the library in use, path None where nothing was opened. reason: one line for people.

    remedy: what would help where it is MLX's own. threads: at most, in one product; 0 is MLX's business.
    """

    kind: Kind
    path: Path | None
    reason: str
    remedy: str = ""
    threads: int = 0

    @property
    def library(self) -> str:
        """What multiplies, for people."""
        return _LIBRARIES.get(self.kind, self.kind)

    @property
    def summary(self) -> str:
        """One line for people: what multiplies, with how many threads."""
        return f"{self.kind}, {self.threads} threads" if self.threads > 1 else self.kind


class _Unusable(Exception):
    """A library that cannot be used, why, and what would fix it; the next one is tried."""

    def __init__(self, reason: str, remedy: str = "Install a C and C++ compiler, e.g. g++") -> None:
        super().__init__(reason)
        self.remedy = remedy


def prepare(cache_dir: Path) -> BlasReport:
    """Open the fastest BLAS for this machine. Call it once, before anything imports mlx.core.

    cache_dir: where the compiled shim is kept; created when missing. Workers may call this at the same time.
    Raises ConfigError when SQUISH_BLAS is none of auto, system, mlx.
    """
    choice = chosen()
    if choice not in ("auto", "system", "mlx"):
        raise ConfigError(f"SQUISH_BLAS is {choice!r}; it can be auto, system or mlx.", param="SQUISH_BLAS")
    if not HOST.COMPILES:
        return BlasReport("accelerate", None, f"{HOST.NAME}: MLX uses Metal and Accelerate")
    if has_cuda():
        return BlasReport("cuda", None, "MLX uses the GPU through CUDA")
    if "mlx.core" in sys.modules:
        return BlasReport("mlx", None, "mlx.core was already imported", "Import squish first")
    return _prepare_cpu(choice, cache_dir)


def chosen() -> str:
    """The value of SQUISH_BLAS, `auto` where it is not set."""
    return os.environ.get("SQUISH_BLAS") or "auto"


def _prepare_cpu(choice: str, cache_dir: Path) -> BlasReport:
    if shutil.which("g++") is None:
        os.environ["MLX_DISABLE_COMPILE"] = "1"
    threads = cores()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    reasons: list[str] = []
    remedy = "Unset SQUISH_BLAS"
    if choice == "auto":
        try:
            path = _open_numpy_openblas(cache_dir, threads)
            reason = "OpenBLAS of numpy's wheel, with kernels for decoding"
            return BlasReport("numpy-openblas", path, reason, threads=threads)
        except _Unusable as error:
            reasons.append(str(error))
            remedy = error.remedy
    if choice in ("auto", "system"):
        try:
            path = _open_system_openblas()
            reason = "; ".join(["system OpenBLAS", *reasons])
            return BlasReport("system-openblas", path, reason, threads=_threads_of_openblas())
        except _Unusable as error:
            reasons.append(str(error))
    else:
        reasons.append("SQUISH_BLAS=mlx")
    return BlasReport("mlx", None, "; ".join(reasons), remedy, 1)


def _threads_of_openblas() -> int:
    """One, unless the user has said otherwise: its threads stall together where another program is busy."""
    said = os.environ["OPENBLAS_NUM_THREADS"]
    return max(1, whole(said) or 1)


def _open_numpy_openblas(cache_dir: Path, threads: int) -> Path:
    """Open numpy's OpenBLAS, and over it the shim. Returns the path of OpenBLAS."""
    openblas = _find_numpy_openblas()
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise _Unusable("no C compiler was found")
    for _ in range(2):
        shim = _build_shim(Path(compiler), openblas, cache_dir, threads)
        try:
            ctypes.CDLL(str(openblas), mode=ctypes.RTLD_GLOBAL)
            ctypes.CDLL(str(shim), mode=ctypes.RTLD_GLOBAL)
        except OSError:
            # Damaged in the cache, for example by a full disk: rebuilt.
            shim.unlink(missing_ok=True)
        else:
            return openblas
    raise _Unusable("the BLAS shim cannot be opened")


def _find_numpy_openblas() -> Path:
    spec = importlib.util.find_spec("numpy")
    if spec is None or spec.origin is None:
        raise _Unusable("numpy is not installed")
    found = sorted((Path(spec.origin).parent.parent / "numpy.libs").glob("libscipy_openblas64_*.so"))
    if not found:
        raise _Unusable("this numpy has no OpenBLAS")
    return found[0]


def _build_shim(compiler: Path, openblas: Path, cache_dir: Path, threads: int) -> Path:
    """The compiled shim: from the cache when source, compiler, library, CPU and threads are those it was built for."""
    source = Path(__file__).with_name("shim.c")
    options = ["-O3", "-fPIC", "-shared", f"-DTHREADS={threads}", f"-DROW_THREADS={(threads + 1) // 2}"]
    key = hashlib.sha256(source.read_bytes())
    for part in (compiler.resolve(), compiler.stat().st_size, openblas, cpu_identity(), *options):
        key.update(f"\0{part}".encode())
    built = cache_dir / f"blas-{key.hexdigest()[:16]}.so"
    if built.exists():
        return built
    if reason := failed.reason(built, str(compiler)):
        raise _Unusable(reason, _UPDATE)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".blas-") as scratch:
            compiled = Path(scratch) / built.name
            try:
                _compile(compiler, options, source, compiled)
            except _Unusable as error:
                failed.remember(built, str(compiler), str(error))
                raise
            # Complete or absent: another worker may be opening it at this moment.
            move_whole(compiled, built)
    except OSError as error:
        reason = f"the BLAS shim cannot be written to {cache_dir}: {error.strerror}"
        raise _Unusable(reason, "Free some space there, and check that you may write there") from error
    return built


def _compile(compiler: Path, options: list[str], source: Path, target: Path) -> None:
    """Compile with what this compiler has: some lack OpenMP, some do not know their CPU."""
    message = ""
    for extra in (["-march=native", "-fopenmp"], ["-march=native"], []):
        command = [str(compiler), *options, *extra, "-o", str(target), str(source)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise _Unusable(f"{compiler.name} took more than {_COMPILE_SECONDS} s", _UPDATE) from error
        if done.returncode == 0:
            return
        message = done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"exit code {done.returncode}"
    raise _Unusable(f"{compiler.name} cannot compile the BLAS shim: {message}", _UPDATE)


def cpu_identity() -> str:
    """What `-march=native` depends on; a home directory may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    )


def _open_system_openblas() -> Path:
    try:
        library = ctypes.CDLL("libopenblas.so.0", mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise _Unusable("no system OpenBLAS was found") from error
    if not hasattr(library, "cblas_sgemm"):
        raise _Unusable("the system OpenBLAS has no cblas_sgemm")
    return Path("libopenblas.so.0")
