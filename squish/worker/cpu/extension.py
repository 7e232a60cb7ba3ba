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

from squish.errors import ConfigError
from squish.system.cores import cores
from squish.worker.cpu import blas, build

_NAME = "squish_native"
_KERNEL = "SQUISH_CPU_KERNEL"


@dataclass(frozen=True, slots=True)
class Opened:
    """module: the extension, None where it cannot be used. Then reason says why, and remedy what helps.

    Both are empty where it is not for this machine, or SQUISH_BLAS wants something else.
    """

    module: Any
    reason: str = ""
    remedy: str = ""


def must_be_compiled(cache_dir: Path) -> bool:
    """Whether `open_extension` will compile first, which takes a minute or two. It imports mlx.core."""
    try:
        return _wanted() and not build.find(cache_dir) and build.will_build(cache_dir)
    except build.CannotBuild:
        return False


@cache
def open_extension(cache_dir: Path) -> Opened:
    """The extension, compiled first where nothing fits. Call it after blas.prepare; it imports mlx.core.

    Raises ConfigError for a SQUISH_CPU_KERNEL that cannot be used.
    """
    from squish.worker import device

    opened = _opened(cache_dir) if _wanted() else Opened(None)
    if (kernel := os.environ.get(_KERNEL)) and build.supported() and device.on_cpu():
        _require(kernel, opened)
    return opened


def _opened(cache_dir: Path) -> Opened:
    try:
        for path in build.find(cache_dir):
            try:
                return Opened(_open(path))
            except (ImportError, TypeError):
                continue  # damaged, for example by a full disk, or of a machine with a newer C library
        return Opened(_open(build.build(cache_dir)))
    except (build.CannotBuild, ImportError, TypeError) as error:
        return _unusable(error)


def _unusable(error: Exception) -> Opened:
    """What `open_extension` returns after this error: why the extension cannot be used, and how to fix that."""
    reason, remedy = str(error), error.remedy if isinstance(error, build.CannotBuild) else "Report it"
    came_for, installed = build.bundled_for(), build.installed_mlx()
    if came_for not in (None, installed):
        reason = f"the one that came with Squish is for MLX {came_for}, not {installed}; {reason}"
        remedy = f"pip install mlx=={came_for}" + (f"; or: {remedy}" if remedy else "")
    return Opened(None, reason, remedy)


def _require(kernel: str, opened: Opened) -> None:
    """Raises ConfigError for a SQUISH_CPU_KERNEL that is unknown, or cannot run here."""
    if opened.module is None:
        because = opened.reason or f"SQUISH_BLAS is {blas.chosen()!r}"
        problem = f"{_KERNEL} is {kernel!r}, but it chooses kernels of the CPU engine, which is not in use: {because}."
        raise ConfigError(problem, hint=f"Unset {_KERNEL}.", param=_KERNEL)
    if kernel not in (known := opened.module.kernels()):
        problem = f"{_KERNEL} is {kernel!r}; on this processor it can be {', '.join(known)}."
        raise ConfigError(problem, hint=f"Unset {_KERNEL}, or set it to one of them.", param=_KERNEL)


def module() -> Any:
    """What `open_extension` has opened in this process, else None."""
    return sys.modules.get(_NAME)


def _wanted() -> bool:
    from squish.worker import device

    return build.supported() and device.on_cpu() and blas.chosen() == "auto"


def _open(path: Path) -> Any:
    """Import the file and multiply by it once: types of another nanobind would not be ours. Raises what that raises."""
    import mlx.core as mx

    spec = importlib.util.spec_from_file_location(_NAME, path)
    assert spec is not None and spec.loader is not None
    native: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    weight, scales, biases = mx.quantize(mx.ones((16, 32)), 32, 4)
    mx.eval(native.products(mx.ones((1, 32)), [native.pack(weight, scales, biases, 4, 32)]))
    if native.kernel() == "portable" and not os.environ.get(_KERNEL):
        raise build.CannotBuild("this processor has no AVX2", "")
    native.set_threads(cores())
    sys.modules[_NAME] = native
    return native
