"""What MLX computes on in this process. It decides between two ways of doing the same in a few places of the worker."""

from __future__ import annotations

import mlx.core as mx


def on_cpu() -> bool:
    """Whether MLX computes on the CPU: numbers are float32 then, prefill steps short, and numpy may look at them."""
    return mx.default_device() == mx.Device(mx.cpu)
