"""A folder that is deleted while the program runs in it, or before."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from squish.attachments.mentions import mentions
from squish.cli import run_guarded
from squish.commands.answers.run_files import _file
from squish.errors import InvalidInput
from squish.system.working_directory import is_deleted, working_directory
from tests.conftest import SQUISH


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that this process is in, deleted."""
    (folder := tmp_path / "gone").mkdir()
    before = Path.cwd()
    os.chdir(folder)
    monkeypatch.setenv("PWD", str(folder))
    folder.rmdir()
    yield folder
    os.chdir(before)


def test_it_is_the_folder_that_the_program_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", "/elsewhere")
    assert working_directory() == tmp_path
    assert not is_deleted()


def test_nothing_is_found_in_one_that_is_deleted(gone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_deleted()
    assert working_directory() == gone
    [mention] = mentions("look at @notes.md", working_directory())
    assert mention.missing
    with pytest.raises(InvalidInput, match=r"There is no file notes\.md"):
        _file("notes.md")
    for other in ("", "relative"):
        monkeypatch.setenv("PWD", other)
        assert not (working_directory() / "notes.md").exists()


def test_what_cannot_go_on_without_it_says_so(gone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(lambda: Path("model.gguf").absolute()) == 1
    assert "The current folder has been deleted." in capsys.readouterr().err
    assert run_guarded(lambda: Path("model.gguf").read_bytes()) == 1
    assert "deleted" not in capsys.readouterr().err


def test_a_prompt_is_answered_all_the_same(tmp_path: Path, environment: dict[str, str]) -> None:
    (folder := tmp_path / "gone").mkdir()
    command = ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", SQUISH, "run", "smollm2:135m", "--prompt", "Hi"]
    command += ["--max-tokens", "2"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, bool(done.stdout.strip())) == (0, True), done.stderr
