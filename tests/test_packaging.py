"""The wheel: what people install has all that it needs and nothing besides."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from squish import __version__
from squish.worker.cpu import build

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel is built from, as a clean clone has it; with the compiled extension of this one, where it is."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "squish", folder / "squish", ignore=shutil.ignore_patterns("__pycache__", "objects"))
    return folder


def build_wheel(sources: Path, into: Path, **variables: str) -> tuple[Path, str]:
    """The wheel, and what was said."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)]
    done = subprocess.run(command, cwd=sources, env=os.environ | variables, check=True, capture_output=True, text=True)
    [wheel] = into.glob("*.whl")
    assert wheel.name.startswith(f"squish-{__version__}-")
    return wheel, done.stdout + done.stderr


@pytest.mark.packaging
def test_the_wheel_holds_the_program_and_nothing_else(sources: Path, tmp_path: Path) -> None:
    compiled = build.supported() and build.place(build.BUNDLED).exists()
    wheel, said = build_wheel(sources, tmp_path, **({} if compiled else {"PATH": ""}))
    names = zipfile.ZipFile(wheel).namelist()
    assert {"squish/models/catalog.toml", "squish/worker/cpu/shim.c", "squish/py.typed", "squish/cli.py"} <= set(names)
    sheets = {str(path.relative_to(ROOT)) for path in (ROOT / "squish").rglob("*.tcss")}
    assert sheets <= set(names)
    assert {name.split("/")[0] for name in names} == {"squish", f"squish-{__version__}.dist-info"}
    assert not [name for name in names if name.endswith((".svg", ".png", ".pyc", ".o")) or "test" in name]
    built = [name for name in names if name.endswith(".so")]
    if not compiled:
        assert (built, wheel.name.endswith("-py3-none-any.whl")) == ([], True)
        return
    assert built == [str(build.place(build.BUNDLED).relative_to(ROOT))]
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.fullmatch(rf".*-{python}-{python}-\w+linux_.+_{platform.machine()}\.whl", wheel.name), said


@pytest.mark.packaging
def test_without_a_compiler_the_wheel_is_for_every_machine_and_says_so(sources: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(sources, bare, ignore=shutil.ignore_patterns("built"))
    wheel, said = build_wheel(bare, tmp_path / "wheel", PATH="")
    assert wheel.name.endswith("-py3-none-any.whl")
    if build.supported():
        assert "no compiled CPU engine (no C++ compiler was found)" in said
        assert "install a C++ compiler" in said


def test_the_engine_is_compiled_against_what_is_installed_with_it() -> None:
    """MLX and nanobind are pinned on Linux, or an update would leave the compiled engine behind."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = {each for each in needed if each.startswith(("mlx[cpu]==", "nanobind=="))}
    assert len(pinned) == 2
    assert all("sys_platform == 'linux'" in each for each in pinned)
