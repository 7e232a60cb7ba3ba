"""Owns what the wheel has besides its Python files: on Linux, the compiled extension of the CPU engine.

Such a wheel is for one version of Python and of MLX, one kind of processor, and the C library of the machine that built
it or a newer one. On macOS, which needs no extension, and without a compiler, the wheel is for every machine, and
Squish compiles on first use where it can.
"""

from __future__ import annotations

import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags


class CpuEngine(BuildHookInterface[Any]):
    """Hatch finds it by the name of this file; pyproject.toml turns it on."""

    def dependencies(self) -> list[str]:
        """What the extension is compiled against, in the versions that Squish runs with."""
        needed = self.metadata.core.dependencies
        return [each for each in needed if each.startswith(("mlx[cpu]", "nanobind"))]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # a source tree; `make setup` compiles into it
            return
        sys.path.insert(0, self.root)
        try:
            from squish.worker.cpu import build
        finally:
            sys.path.remove(self.root)
        if not build.supported():
            return
        try:
            compiled = build.bundle()
        except build.CannotBuild as error:
            self.app.display_warning(
                f"The wheel gets no compiled CPU engine ({error}): Squish compiles on first use, or models run slower. "
                f"To put it in: {error.remedy[0].lower()}{error.remedy[1:]}."
            )
            return
        build_data["pure_python"] = False
        build_data["tag"] = next(str(tag) for tag in sys_tags() if "linux_" in tag.platform.removeprefix("linux_"))
        build_data["force_include"][str(compiled)] = str(compiled.relative_to(self.root))
