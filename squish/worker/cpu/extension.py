"""Owns the one way to the extension of native/: compiled if need be, opened once, checked. It knows no models.

`module()` is the extension, or None where this process computes without it. What it offers is in native/module.cpp.

To add a primitive: write `native/NAME.cpp` with a function that returns `mlx::core::array`s of a `Primitive` of yours
(product.cpp is the pattern: allocate in `eval_cpu`, dispatch a lambda that holds `unsafe_weak_copy`s, and share its
work with `squish::parallel` of pool.h); declare it in a header; bind it in module.cpp. build.py finds new files by
itself. Loops that want an instruction set's own form belong into kernels.inl, behind a function pointer of `Kernels`.
Whatever is computed for a row must not depend on the other rows, on tiles or on threads.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from squish.worker.cpu import build
from squish.worker.cpu.cores import cores

_NAME = "squish_native"


@dataclass(frozen=True, slots=True)
class Opened:
    """module: the extension, None where it cannot be used; then `warning` says why, and what helps."""

    module: Any
    warning: str = ""


def must_be_compiled(cache_dir: Path) -> bool:
    """Whether `open_extension` will compile first, which takes half a minute. It imports mlx.core."""
    try:
        return _wanted() and not build.find(cache_dir)
    except build.CannotBuild:
        return False


@cache
def open_extension(cache_dir: Path) -> Opened:
    """The extension, compiled first where nothing fits. Call it after blas.prepare; it imports mlx.core."""
    if not _wanted():
        return Opened(None)
    try:
        for path in build.find(cache_dir):
            try:
                return Opened(_open(path))
            except (ImportError, TypeError):
                continue  # damaged, for example by a full disk, or of a machine with a newer C library
        return Opened(_open(build.build(cache_dir)))
    except (build.CannotBuild, ImportError, TypeError) as error:
        return Opened(None, _warning(error))


def _warning(error: Exception) -> str:
    """Why there is no extension, and what helps, in one line."""
    reason, remedy = str(error), error.remedy if isinstance(error, build.CannotBuild) else "Report it"
    came_for, installed = build.bundled_for(), build.installed_mlx()
    if came_for not in (None, installed):
        reason = f"the one that came with Squish is for MLX {came_for}, not {installed}; {reason}"
        remedy = f"pip install mlx=={came_for}; or: {remedy}"
    return f"The CPU engine is not in use, so models run slower ({reason}). {remedy}."


def module() -> Any:
    """What `open_extension` has opened in this process, else None."""
    return sys.modules.get(_NAME)


def _wanted() -> bool:
    import mlx.core as mx

    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    return build.supported() and on_cpu and (os.environ.get("SQUISH_BLAS") or "auto") == "auto"


def _open(path: Path) -> Any:
    """Import the file and multiply by it once: types of another nanobind would not be ours. Raises what that raises."""
    import mlx.core as mx

    spec = importlib.util.spec_from_file_location(_NAME, path)
    assert spec is not None and spec.loader is not None
    native: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    weight, scales, biases = mx.quantize(mx.ones((16, 32)), 32, 4)
    mx.eval(native.products(mx.ones((1, 32)), [native.pack(weight, scales, biases, 4, 32)]))
    if native.kernel() == "portable" and not os.environ.get("SQUISH_CPU_KERNEL"):
        raise build.CannotBuild("this processor has no AVX2", "OpenBLAS computes instead")
    native.set_threads(cores())
    sys.modules[_NAME] = native
    return native
