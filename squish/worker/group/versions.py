"""What has to be the same in all ranks of a group, because they compute one answer together."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from squish import __version__


def versions() -> tuple[str, ...]:
    """Squish, MLX and mlx-lm, each with its version."""
    return (f"squish {__version__}", *(f"{package} {_version(package)}" for package in ("mlx", "mlx-lm")))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
