"""What the command line says on a terminal ends its lines at spaces."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios

import click
import pytest

from squish import console
from squish.cli import run_guarded
from squish.errors import SquishError

COLUMNS = 40
PROBLEM = SquishError(
    "The folder /home/somebody/a-long-name-without-spaces-that-fits-nowhere cannot be read by this program.",
    hint="Run: squish config set cache_dir PATH, and then try the same once more.",
)


class Terminal:
    """Stands for stderr; `said` is what has come out."""

    def __init__(self, columns: int) -> None:
        self._own, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, columns, 0, 0))
        self.stream = os.fdopen(theirs, "w")

    def said(self) -> list[str]:
        self.stream.write("\0")
        self.stream.flush()
        read = b""
        while not read.endswith(b"\0"):
            read += os.read(self._own, 4096)
        self.stream.close()
        os.close(self._own)
        return read.decode().rstrip("\0").splitlines()


@pytest.mark.parametrize("columns", [COLUMNS, 60])
def test_an_error_is_broken_at_spaces(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    terminal = Terminal(columns)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    console.error(PROBLEM)
    lines = terminal.said()
    words = [word for line in lines for word in line.split()]
    assert words == f"squish: {PROBLEM.message} {PROBLEM.hint}".split()
    assert all(len(line) <= columns or len(line.split()) == 1 for line in lines)
    assert all(line.startswith("        ") for line in lines[1:])


def test_a_flag_that_is_wrong_is_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        raise click.UsageError("This option cannot be used together with that other option.")

    terminal = Terminal(COLUMNS)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    assert run_guarded(body) == 2
    lines = terminal.said()
    assert all(len(line) <= COLUMNS for line in lines)
    assert " ".join(lines) == "Error: This option cannot be used together with that other option."


def test_a_terminal_that_does_not_say_how_wide_it_is_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(0)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    console.error(PROBLEM)
    assert len(terminal.said()) == 2


def test_a_file_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.error(PROBLEM)
    assert len(capsys.readouterr().err.splitlines()) == 2
