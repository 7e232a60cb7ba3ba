"""Owns how the extension in native/ is compiled and where it lies. It imports neither mlx nor nanobind.

The extension is tied to the exact version of MLX (its C++ ABI), of nanobind (whose types both share) and of Python, so
all three are in the name of the file, with a hash of the sources. It is compiled once: by the wheel's build and by
`make setup` into the package (`BUNDLED`), else on first use into the cache, which may be that of several machines, so
there the C library is in the name too. Each source file is compiled by itself;
those of an instruction set with its flags (`_VARIANTS`), and which of them run is decided at run time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from squish.files import alone_in, move_whole
from squish.system.cores import cores
from squish.system.host import HOST
from squish.worker.cpu import failed

SOURCES = Path(__file__).with_name("native")
BUNDLED = SOURCES / "built"
_SECONDS = 1800
_UPDATE = f"Update the compiler; {failed.TRIED_AGAIN}"
_SCRATCH = "native-"
_FLAGS = ("-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wno-maybe-uninitialized")
# MLX's wheel is compiled with this, and types are shared only within a domain.
_DEFINED = ("-DNDEBUG", "-DNB_DOMAIN=mlx")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_VARIANTS: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    "x86_64": {
        "avx2": (_AVX2, (*_AVX2, "-mavxvnni")),
        "avx512": (_AVX512, (*_AVX512, "-mavx512vnni")),
        "layer_avx2": (_AVX2,),
        "layer_avx512": (_AVX512,),
    },
    "aarch64": {"neon": ((), ("-march=armv8.2-a+dotprod",), ("-march=armv8.2-a+dotprod+i8mm",))},
}
# What the other files are compiled for; said aloud, because kernels.py puts a compiler first that means this processor.
_OLDEST = {"x86_64": "-march=x86-64", "aarch64": "-march=armv8-a"}
_OF_A_PROCESSOR = {name for files in _VARIANTS.values() for name in files}


class CannotBuild(Exception):
    """Why the extension cannot be compiled here, and in `remedy` what the user can do about it."""

    def __init__(self, reason: str, remedy: str = "Install a C++ compiler, e.g. g++") -> None:
        super().__init__(reason)
        self.remedy = remedy


def supported() -> bool:
    """Whether this is a machine that the extension is for: Linux on x86-64 or arm64."""
    return HOST.COMPILES and platform.machine() in _VARIANTS


def find(cache_dir: Path) -> list[Path]:
    """The compiled extensions for what is installed now, the one that came with Squish first."""
    return [path for path in (place(BUNDLED), place(cache_dir)) if path.exists()]


def bundled_for() -> str | None:
    """The version of MLX that the extension in the package was compiled for; None where there is none."""
    names = (path.name for path in sorted(BUNDLED.glob("mlx*.so")))
    return next((name.removeprefix("mlx").split("-")[0] for name in names), None)


def place(folder: Path) -> Path:
    """Where the compiled extension is in a folder."""
    return folder / (file_name() if folder == BUNDLED else f"{'-'.join(platform.libc_ver())}-{file_name()}")


def file_name() -> str:
    """Of the compiled extension: it says what the file was compiled for."""
    key = hashlib.sha256()
    for path in _files():
        key.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    mlx, nanobind = versions()
    for part in (mlx, nanobind, *_FLAGS, *_DEFINED, _VARIANTS, _OLDEST):
        key.update(f"\0{part}".encode())
    return f"mlx{mlx}-{key.hexdigest()[:16]}{sysconfig.get_config_var('EXT_SUFFIX')}"


def versions() -> tuple[str, str]:
    """Of what it is compiled against: MLX and nanobind, as installed. Raises CannotBuild."""
    return installed_mlx(), _version("nanobind")


def installed_mlx() -> str:
    """Its version. Raises CannotBuild where it is not installed."""
    return _version("mlx")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise CannotBuild(f"{package} is not installed", f"pip install {package}") from error


def build(folder: Path) -> Path:
    """Compile into `folder`; some 100 seconds of one core. Raises CannotBuild.

    The file appears there complete or not at all: others may be opening it at this moment. Whoever also wants to
    compile waits, and whoever comes after a process that was killed goes on where it stopped. A compiler that failed is
    not tried again, except for the package.
    """
    compiler = require_tools()
    built = place(folder)
    if folder != BUNDLED and (reason := failed.reason(built, compiler)):
        raise CannotBuild(reason, _UPDATE)
    # What is compiled is kept: in a source tree for the next change, elsewhere for whoever was interrupted.
    objects = folder / ("objects" if folder == BUNDLED else f"{built.stem}.objects")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder):  # without locks each compiles for itself; who loses says that it cannot be written
            objects.mkdir(exist_ok=True)
            for left in objects.glob(f"{_SCRATCH}*"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            if not built.exists():
                with tempfile.TemporaryDirectory(dir=objects, prefix=_SCRATCH) as scratch:
                    compiled = Path(scratch) / "linked.so"
                    try:
                        link(compiler, compiled, objects)
                    except CannotBuild as error:
                        failed.remember(built, compiler, str(error))
                        raise
                    move_whole(compiled, built)
            if folder != BUNDLED:
                shutil.rmtree(objects, ignore_errors=True)
    except OSError as error:
        reason = f"it cannot be written to {folder}: {error.strerror}"
        raise CannotBuild(reason, "Free some space there, and check that you may write there") from error
    return built


def will_build(folder: Path) -> bool:
    """Whether `build` would compile: everything is there, and the compiler has not failed before."""
    try:
        return failed.reason(place(folder), require_tools()) is None
    except CannotBuild:
        return False


def require_tools() -> str:
    """The C++ compiler, where everything is there that compiling needs. Raises CannotBuild."""
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if compiler is None:
        raise CannotBuild("no C++ compiler was found")
    includes()
    return compiler


def includes() -> list[Path]:
    """Where the headers are that the sources need besides their own. Raises CannotBuild."""
    mlx, nanobind = _installed("mlx"), _installed("nanobind")
    python = Path(sysconfig.get_paths()["include"])
    if not (python / "Python.h").exists():
        raise CannotBuild(f"Python's headers are not in {python}", "Install them, e.g. python3-dev")
    return [mlx / "include", nanobind / "include", nanobind / "ext" / "robin_map" / "include", python]


def _files() -> list[Path]:
    return sorted(path for path in SOURCES.iterdir() if path.suffix in (".cpp", ".h", ".inl"))


def link(compiler: str, target: Path, objects: Path, machine: str = "", mlx: Path | None = None) -> None:
    """Compile what is not in the folder `objects` yet, and link all of it into the new file `target`.

    machine: what to compile for, and mlx: where MLX for it is installed; by default this one's. Raises CannotBuild.
    """
    machine, library = machine or platform.machine(), (mlx or _installed("mlx")) / "lib"
    nanobind = _installed("nanobind")
    options = [_OLDEST[machine], *_FLAGS, *_DEFINED, *(f"-I{path}" for path in includes())]
    headers = b"".join(path.read_bytes() for path in _files() if path.suffix != ".cpp")
    made, missing = [], []
    for source, flags in _units(nanobind, machine):
        own = headers if source.parent == SOURCES else file_name().split("-")[0].encode()
        key = hashlib.sha256(f"{compiler} {options} {flags}".encode() + own + source.read_bytes()).hexdigest()[:16]
        compiled = objects / f"{source.stem}-{key}.o"
        made.append(compiled)
        if not compiled.exists():
            missing.append(([compiler, *options, *flags, "-c", str(source)], target.parent / compiled.name, compiled))
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(lambda each: _compile(*each), missing))
    for path in set(objects.glob("*.o")) - set(made):
        path.unlink(missing_ok=True)
    _run([compiler, "-shared", "-o", str(target), *map(str, made), f"-L{library}", "-lmlx", "-pthread", "-Wl,-s"])


def _compile(command: list[str], partial: Path, compiled: Path) -> None:
    _run([*command, "-o", str(partial)])
    partial.replace(compiled)


def _units(nanobind: Path, machine: str) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Each file to compile with its own flags, the slowest first."""
    yield nanobind / "src" / "nb_combined.cpp", ("-fno-strict-aliasing",)
    variants = _VARIANTS[machine]
    for path in _files():
        if path.suffix != ".cpp" or path.stem in _OF_A_PROCESSOR - variants.keys():
            continue
        for flags in variants.get(path.stem, ((),)):
            yield path, flags


def _installed(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise CannotBuild(f"{package} is not installed", f"pip install {package}")
    return Path(next(iter(spec.submodule_search_locations)))


def _run(command: list[str]) -> None:
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise CannotBuild(f"{name} took more than {_SECONDS} s", _UPDATE) from error
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        reason = errors[0] if errors else f"exit code {done.returncode}"
        raise CannotBuild(f"{name} cannot compile it: {reason}", _UPDATE)


def bundle() -> Path:
    """The extension in the package; compiled where what is there does not fit. Raises CannotBuild."""
    versions()  # or there is no name for it
    if not place(BUNDLED).exists():
        for old in BUNDLED.glob("*.so"):
            old.unlink()
        sys.stderr.write("Compiling the CPU engine (a minute or two)…\n")
        build(BUNDLED)
    return place(BUNDLED)


def main() -> None:
    """`python -m squish.worker.cpu.build`: compile into the package, where nothing fits yet; says why it cannot."""
    if not supported():
        return
    try:
        bundle()
    except CannotBuild as error:
        sys.stderr.write(f"The CPU engine was not compiled ({error}), so models run slower. {error.remedy}.\n")


if __name__ == "__main__":
    main()
