"""The peer is built, found and judged as the command line says; nothing is compiled here but one instruction."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from squish.system.cores import cores
from tests.bench import llama

ROOT = Path(__file__).parent.parent.parent


def peer(folder: Path, instruction: str) -> Path:
    """A folder with a program and a library of one instruction, by its soname and a link."""
    assembler = shutil.which("as")
    if assembler is None or shutil.which("objdump") is None:
        pytest.skip("needs binutils")
    library = folder / "libggml-cpu.so.0.1"
    done = subprocess.run([assembler, "-o", str(library), "-"], input=f"{instruction}\n", text=True, check=False)
    if done.returncode:
        pytest.skip("needs an assembler for x86-64")
    (folder / "libggml-cpu.so").symlink_to(library)
    program = folder / "llama-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_a_peer_with_wider_instructions_than_asked_for_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = peer(tmp_path, "vaddps %zmm0, %zmm1, %zmm2")
    assert llama.widest(program) == "AVX-512"
    assert llama.find(str(tmp_path)) == program
    with pytest.raises(SystemExit):
        llama.find(str(tmp_path), "avx2")
    assert "uses AVX-512. Build it with -DGGML_NATIVE=OFF" in capsys.readouterr().err


def test_a_peer_with_those_instructions_is_taken(tmp_path: Path) -> None:
    program = peer(tmp_path, "vaddps %ymm0, %ymm1, %ymm2")
    assert llama.widest(program) == "AVX2"
    assert llama.find(str(tmp_path), "avx2") == program


def test_a_build_for_few_instructions_goes_to_a_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    programs = []
    for name in ("llama", "llama-avx2"):
        program = tmp_path / "squish-bench" / name / "bin" / "llama-server"
        program.parent.mkdir(parents=True)
        program.touch(mode=0o755)
        programs.append(program)
    assert [llama.find(None), llama.find(None, "avx2")] == programs
    jobs = {llama.build_settings(None)[name] for name in ("LLAMA_CPP_BUILD_JOBS", "CMAKE_BUILD_PARALLEL_LEVEL")}
    assert jobs == {str(cores())}
    flags = [llama.build_settings(each)["CMAKE_ARGS"].split() for each in (None, "avx2")]
    assert set(flags[1]) - set(flags[0]) >= {"-DGGML_NATIVE=OFF", "-DGGML_AVX512=OFF", "-DGGML_AVX2=ON"}
    assert set(flags[0]) < set(flags[1])


def test_what_stands_behind_make_bench_reaches_the_benchmark() -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    asked = ["--llama", "/a/path", "--instructions", "avx2", "--rounds", "1"]
    # The order to make nothing is part of the command: the benchmark itself does not run.
    done = subprocess.run(
        ["make", "-n", "bench", "--", *asked], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert f"-m tests.bench {' '.join(asked)}\n" in done.stdout
