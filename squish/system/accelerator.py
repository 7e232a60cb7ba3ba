"""What MLX computes with on this machine, and the limits that follow from it. Both processes go by them."""

from __future__ import annotations

from pathlib import Path

from squish.system.host import HOST

# Bytes that models leave to everybody else where they share the memory: caches, activations, other programs.
RESERVE = 1 << 30
# Tokens of a prompt that one step takes at most. On a CPU more is not faster, and takes memory.
PREFILL_STEP, PREFILL_STEP_ON_CPU = 2048, 512

_WHEELS = ("mlx-cuda-13", "mlx-cuda-12", "mlx-cuda")
_DEVICES = ("/dev/nvidiactl", "/dev/dxg")  # the second under Windows


def has_gpu() -> bool:
    """Whether MLX computes on a GPU here."""
    return HOST.NAME == "macOS" or has_cuda()


def has_cuda() -> bool:
    """Whether there is an NVIDIA GPU and the MLX that is installed computes on it."""
    return any(Path(device).exists() for device in _DEVICES) and any(map(_is_installed, _WHEELS))


def _is_installed(wheel: str) -> bool:
    import importlib.metadata

    try:
        importlib.metadata.distribution(wheel)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
