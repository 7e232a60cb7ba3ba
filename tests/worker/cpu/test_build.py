"""Where the extension comes from, and what is said and done where it cannot be had."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest

from squish.system.probed import Slower
from squish.worker.cpu import blas, build, extension, failed, install

pytestmark = pytest.mark.skipif(not build.supported(), reason="the extension is for Linux")

MLX = importlib.metadata.version("mlx")


@pytest.fixture(autouse=True)
def bundled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package without a compiled extension, on a machine without a compiler."""
    empty = tmp_path / "bundled"
    empty.mkdir()
    monkeypatch.setattr(build, "BUNDLED", empty)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delitem(sys.modules, extension._NAME, raising=False)
    return empty


@pytest.fixture
def functions_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("rms_norm", "rope", "scaled_dot_product_attention"):
        monkeypatch.setattr(mx.fast, name, getattr(mx.fast, name))
    yield


def test_without_a_compiler_one_sentence_says_so_and_it_computes(tmp_path: Path, functions_as_they_were: None) -> None:
    report = blas.BlasReport("system-openblas", None, "")
    engine = install.install(report, tmp_path)
    why = "no C++ compiler was found"
    expected = f"The CPU engine is not in use ({why}), so models run slower, in float32 through the system's OpenBLAS."
    assert engine.warnings == (Slower(expected, "Install a C++ compiler, e.g. g++"),)
    assert engine.warnings[0].sentence == f"{expected} Install a C++ compiler, e.g. g++."
    assert not install.compiles_first(tmp_path)  # or a line would say that it does
    assert (engine.kernel, engine.precision) == ("", "float32")
    q = k = v = mx.random.normal((1, 2, 3, 16))
    found = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.25, mask=None)
    assert mx.allclose(found, mx.softmax(q @ k.swapaxes(-1, -2) * 0.25, axis=-1) @ v, atol=1e-5)


def test_an_extension_for_another_mlx_is_never_opened(tmp_path: Path, bundled: Path) -> None:
    (bundled / "mlx0.1.2-0123456789abcdef.so").write_bytes(b"")
    opened = extension.open_extension(tmp_path / "a")
    assert opened.reason == f"{extension_for('0.1.2')}; no C++ compiler was found"
    assert opened.remedy == "pip install mlx==0.1.2; or: Install a C++ compiler, e.g. g++"


def extension_for(version: str) -> str:
    return f"the one that came with Squish is for MLX {version}, not {MLX}"


def test_other_versions_have_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    now = build.file_name()
    assert now.startswith(f"mlx{MLX}-")
    for others in (("0.0.1", build.versions()[1]), (MLX, "0.0.1")):
        monkeypatch.setattr(build, "versions", lambda others=others: others)
        assert build.file_name() != now


def test_a_damaged_file_gives_way(tmp_path: Path, bundled: Path) -> None:
    """One that came with Squish may be of a newer C library; the next is tried, and then compiled."""
    for path in (build.place(bundled), build.place(tmp_path / "cache")):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"damaged")
    assert build.find(tmp_path / "cache") == [build.place(bundled), build.place(tmp_path / "cache")]
    assert "no C++ compiler" in extension.open_extension(tmp_path / "cache").reason


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = importlib.metadata.version

    def version(package: str) -> str:
        if package == "nanobind":
            raise importlib.metadata.PackageNotFoundError(package)
        return of(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert not extension.must_be_compiled(tmp_path)
    opened = extension.open_extension(tmp_path)
    assert (opened.reason, opened.remedy) == ("nanobind is not installed", "pip install nanobind")


def test_missing_headers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: sys.executable)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(build.CannotBuild, match=r"Python's headers are not in") as error:
        build.build(tmp_path)
    assert "python3-dev" in error.value.remedy


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: sys.executable)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(build.CannotBuild, match=r"cannot be written to .*file"):
        build.build(tmp_path / "file")


def test_the_wheel_s_build_needs_no_package_that_squish_runs_with() -> None:
    """pip builds where only MLX, nanobind and the build system are."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('psutil', 'msgspec', 'numpy', 'rich', 'click', 'httpx2')));"
    )
    program += "from squish.worker.cpu import build; print(build.file_name())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == build.file_name(), done.stderr


@pytest.fixture
def one_quick_unit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A compiler that lists in `compiled` what it is given, and two files; with `broken` the second kills who asks."""
    compiler = tmp_path / "g++"
    compiler.write_text(
        "#!/bin/sh\n"
        'for word; do case "$previous" in -o) target=$word;; -c) source=$word;; esac; previous=$word; done\n'
        f'echo "${{source:-link}}" >> {tmp_path}/compiled\n'
        f'case "$source" in *second.cpp) test -e {tmp_path}/broken && kill -9 $PPID;; esac\n'
        'echo > "$target"\n'
    )
    compiler.chmod(0o755)
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in ("first", "second"):
        (sources / f"{name}.cpp").write_text(f"// {name}")
    monkeypatch.setattr(build, "_units", lambda nanobind, machine: [(path, ()) for path in sorted(sources.iterdir())])
    monkeypatch.setattr(shutil, "which", lambda name: str(compiler))
    monkeypatch.setattr(build, "cores", lambda: 1)
    yield tmp_path


def test_a_compiler_that_failed_is_tried_again_only_when_it_changes_or_somebody_asks(
    one_quick_unit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, cache, compiled = one_quick_unit / "g++", one_quick_unit / "cache", one_quick_unit / "compiled"
    works = compiler.read_text()
    broken = works + "echo 'error: unknown instruction' >&2\nexit 1\n"
    compiler.write_text(broken)
    assert build.will_build(cache)
    tried = ""
    for _ in range(3):
        with pytest.raises(build.CannotBuild, match=r"g\+\+ cannot compile it: error: unknown instruction") as refused:
            build.build(cache)
        assert refused.value.remedy == "Update the compiler; `squish doctor` tries again"
        tried = tried or compiled.read_text()
        assert compiled.read_text() == tried, "only the first worker tries"
        assert not build.will_build(cache)
    failed.forget(cache)
    with pytest.raises(build.CannotBuild):
        build.build(cache)
    assert compiled.read_text() != tried
    compiler.write_text(works)
    assert build.will_build(cache)
    assert build.build(cache).exists()


def in_another_process(cache: Path) -> int:
    if (child := os.fork()) == 0:
        try:
            build.build(cache)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def test_a_compile_that_was_killed_goes_on_where_it_stopped_and_leaves_nothing(one_quick_unit: Path) -> None:
    log, broken, cache = one_quick_unit / "compiled", one_quick_unit / "broken", one_quick_unit / "cache"
    broken.touch()
    assert os.waitpid(in_another_process(cache), 0)[1] == signal.SIGKILL
    assert [Path(line).name for line in log.read_text().splitlines()] == ["first.cpp", "second.cpp"]
    broken.unlink()
    assert build.build(cache) == build.place(cache)
    assert [Path(line).name for line in log.read_text().splitlines()][2:] == ["second.cpp", "link"]
    assert list(cache.iterdir()) == [build.place(cache)]


def test_two_processes_compile_once(one_quick_unit: Path) -> None:
    cache = one_quick_unit / "cache"
    children = [in_another_process(cache) for _ in range(5)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5
    assert (one_quick_unit / "compiled").read_text().count("link") == 1
    assert list(cache.iterdir()) == [build.place(cache)]
