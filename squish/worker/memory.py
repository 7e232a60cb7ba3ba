"""Owns MLX's memory limits and reads what is in use. It knows nothing of which model fits: fit.py does.

Memory is not wired unless the user asks for it, and then the weights alone. A wired limit at its maximum, concurrent
streams and a churning cache together panicked the macOS kernel, and mlx-lm raises the limit by itself in `wired_limit`
and in every BatchGenerator; `limits` takes that away.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import mlx.core as mx

from squish.system.accelerator import RESERVE
from squish.system.host import HOST
from squish.worker import device

# Buffers kept for reuse: enough for the activations of a prefill step, too little to push a neighbor into swap.
_CACHE_SHARE = 16
_LARGEST_CACHE = 2 << 30
_LARGEST_CACHE_ON_CPU = 128 << 20  # a prefill step is smaller there, and memory comes quickly from the system
# What the system and the other processes keep when MLX takes all it may.
_MEMORY_SHARE = 0.9


def limits() -> None:
    """Bound what MLX keeps, and forbid mlx-lm to wire memory. Call it once, in the process that loads a model.

    The memory limit makes MLX wait for running work and drop its cache; it does not refuse an allocation.
    """
    reading = HOST.memory()
    total = reading.total
    mx.set_memory_limit(reading.gpu or int(total * _MEMORY_SHARE))
    largest = _LARGEST_CACHE_ON_CPU if device.on_cpu() else _LARGEST_CACHE
    mx.set_cache_limit(min(total // _CACHE_SHARE, largest))
    # mlx-lm offers no switch; None is its own answer where a device reports no limit. By name, because the package
    # has a function that is called like this module.
    generate: Any = importlib.import_module("mlx_lm.generate")
    generate.maybe_set_recommended_wired_limit = _no_wired_limit


def _no_wired_limit() -> None:
    return None


def give_back() -> None:
    """Return freed memory to the system. MLX and glibc keep what loading a model has freed, up to half of it."""
    mx.clear_cache()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def room() -> int:
    """Bytes that weights may take now. Where a GPU shares the memory, the limit is the GPU's: what other programs hold
    is compressed or swapped when it is needed."""
    reading = HOST.memory()
    return reading.gpu - mx.get_active_memory() if reading.gpu else reading.available - RESERVE


def wire(weights_bytes: int) -> None:
    """Keep the weights from being swapped, where the GPU shares the memory. Call it once they are loaded."""
    if HOST.memory().gpu:
        mx.set_wired_limit(weights_bytes)


def cache_budget() -> int:
    """Bytes that KV caches may take once the weights are loaded: half of what is free, at most a quarter of all."""
    reading = HOST.memory()
    return min(room() // 2 if reading.gpu else reading.available // 2, reading.total // 4)
