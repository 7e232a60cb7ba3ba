"""What the command line says on a terminal ends its lines at spaces."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
import threading
import time

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


def drawn(terminal: Terminal) -> list[str]:
    """What stood in the status line, one after the other; nothing where it was taken away."""
    return [each.removeprefix("\x1b[2m").removesuffix("\x1b[0m") for each in "".join(terminal.said()).split("\x1b[2K")]


class Beats(threading.Event):
    """So many seconds pass, and then it is over."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count

    def wait(self, timeout: float | None = None) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_wait_has_seconds_which_go_on_without_anybody_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_DRAW_INTERVAL", 0.0)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal(COLUMNS)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    status = console.Status()
    status.wait("measure", time.monotonic() - 75)
    thread = next(each for each in threading.enumerate() if each.name == "status line")
    status._tick(Beats(3))
    status.clear()
    thread.join()
    status._tick(Beats(1))
    shown = [each for each in drawn(terminal) if each.strip("\r")]
    assert len(shown) >= 4  # its own, and three that nobody has asked for
    assert all(each.startswith("measure  1 min ") for each in shown)


def test_what_is_shown_after_a_wait_has_no_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_DRAW_INTERVAL", 0.0)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal(0)  # columns that it does not say
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    status = console.Status()
    with status.waiting("checking…"):
        status.show("45 %")
        status._draw_wait()
    assert [each.strip("\r") for each in drawn(terminal)] == ["", "checking…", "45 %", ""]


def test_a_wait_is_a_line_with_seconds_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status = console.Status()
    monkeypatch.setattr(console, "_PLAIN_INTERVAL", 0.0)
    with status.waiting("fusing…"):
        status.wait("fusing…", time.monotonic() - 20)
    assert capsys.readouterr().err.splitlines()[:2] == ["fusing…", "fusing…  20 s"]


def test_a_wait_that_no_log_is_told_of_shows_on_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_PLAIN_INTERVAL", 0.0)
    with console.Status().on_terminal("searching…"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal(COLUMNS)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    with console.Status().on_terminal("searching…"):
        pass
    assert [each.strip("\r") for each in drawn(terminal)] == ["", "searching…", ""]
