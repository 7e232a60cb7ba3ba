"""Owns what is replaced in MLX where a model computes on a CPU, all behind `install` and `prepare_model`.

docs/architecture.md has the table of what is replaced, why, and how it is tested. On a GPU nothing is.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from squish.worker.cpu import attention, extension, functions, fusion, rotary


def install() -> None:
    """Replace MLX's functions in this process. Call it once, after `extension.open_extension` and before a model."""
    if mx.default_device() != mx.Device(mx.cpu):
        return
    native = extension.module()
    if native is None:
        attention.use_fused_attention()
        rotary.use_short_rotation()
    else:
        functions.use(native)


def prepare_model(model: Any) -> None:
    """Put a loaded model's layers together where that is possible; its weights must be in memory."""
    native = extension.module()
    if native is not None and mx.default_device() == mx.Device(mx.cpu):
        fusion.fuse(model, native)
