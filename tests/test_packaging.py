"""The wheel: what people install has all that it needs and nothing besides."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from squish import __version__

ROOT = Path(__file__).parent.parent


@pytest.mark.packaging
def test_the_wheel_holds_the_program_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"squish-{__version__}-")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"squish/models/catalog.toml", "squish/worker/cpu/shim.c", "squish/py.typed", "squish/cli.py"} <= set(names)
    sheets = {str(path.relative_to(ROOT)) for path in (ROOT / "squish").rglob("*.tcss")}
    assert sheets <= set(names)
    assert {name.split("/")[0] for name in names} == {"squish", f"squish-{__version__}.dist-info"}
    assert not [name for name in names if name.endswith((".svg", ".png", ".pyc")) or "test" in name]
