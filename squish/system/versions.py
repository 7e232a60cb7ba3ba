"""Which versions of Squish and of what it stands on are installed, and whether they fit. It imports none of them."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from dataclasses import dataclass

from squish import __version__
from squish.system.host import HOST

_BACKENDS = (("mlx-metal", "Metal"), ("mlx-cuda-13", "CUDA"), ("mlx-cuda-12", "CUDA"), ("mlx-cpu", "CPU"))
_BOUND = re.compile(r"(>=|<=|==|!=|>|<)\s*([\d.]+)")


@dataclass(frozen=True, slots=True)
class Package:
    """version is None where it is not installed. wanted: the bounds that Squish declares, like `>=0.32.4,<0.33`."""

    name: str
    version: str | None
    wanted: str

    @property
    def fits(self) -> bool:
        return self.version is not None and all(
            _holds(_number(self.version), sign, _number(bound)) for sign, bound in _BOUND.findall(self.wanted)
        )


def summary() -> str:
    """One line: Squish, MLX with its backend, mlx-lm, Python."""
    mlx, lm = version_of("mlx"), version_of("mlx-lm")
    engine = f"MLX {mlx} ({backend()})" if mlx else "MLX is not installed"
    return f"squish {__version__} · {engine} · mlx-lm {lm or 'not installed'} · Python {platform.python_version()}"


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def backend() -> str:
    """The backend that MLX was installed with: Metal, CUDA or CPU."""
    return next((name for package, name in _BACKENDS if version_of(package)), "no backend")


def packages() -> tuple[Package, ...]:
    """What Squish needs on this machine, with its bounds, sorted by name."""
    found = {}
    for line in importlib.metadata.requires("squish") or ():
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        match = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*\(?([^)]*)\)?", requirement)
        if match and _applies(marker):
            found[match[1]] = Package(match[1], version_of(match[1]), match[2].strip())
    return tuple(found[name] for name in sorted(found))


def _applies(marker: str) -> bool:
    """Whether a requirement is for this machine: ours depend on the platform, or belong to an extra."""
    platforms: list[str] = re.findall(r"sys_platform == ['\"](\w+)['\"]", marker)
    return "extra" not in marker and (not platforms or HOST.MARKER in platforms)


def _number(version: str) -> tuple[int, ...]:
    parts = [int(part) for part in re.findall(r"\d+", version.split("+")[0])[:4]]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _holds(version: tuple[int, ...], sign: str, bound: tuple[int, ...]) -> bool:
    return {
        ">=": version >= bound,
        "<=": version <= bound,
        "==": version == bound,
        "!=": version != bound,
        ">": version > bound,
        "<": version < bound,
    }[sign]
