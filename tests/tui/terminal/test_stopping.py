"""A program that was stopped takes the terminal back once, whichever signal stopped it, and leaves it as it was."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from squish.tui.terminal.keyboard import QuickDriver

_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|.)")
_PROGRAM = """
import asyncio, sys
from pathlib import Path
from squish.tui import program
from squish.tui.terminal.guard import guarded_stderr, own_driver_parts
from tests.tui.scripted import MODELS, SMOL, ScriptedApp

async def main():
    app = ScriptedApp(*MODELS, model=SMOL.id, chats=Path(sys.argv[1]) / "chats.db")
    return (await program._shown(app, app.runtime.settings)).return_code

with guarded_stderr(Path(sys.argv[1]) / "log"), own_driver_parts():
    sys.exit(asyncio.run(main()))
"""


class Shown:
    """The program in a terminal, and what it has drawn since it was forgotten last."""

    def __init__(self, home: Path, terminal: int, side: int) -> None:
        self._terminal, self.drawn = terminal, bytearray()
        self.program = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(home)], stdin=side, stdout=side, stderr=side, start_new_session=True
        )

    @property
    def text(self) -> bytes:
        return _SEQUENCE.sub(b"", bytes(self.drawn))

    def type(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def until(self, done: Callable[[], bool]) -> None:
        while not done():
            assert self.program.poll() is None, self.text.decode(errors="replace")
            self.read(0.05)

    def read(self, seconds: float) -> bool:
        """Whether anything was to be read within these seconds."""
        readable = bool(select.select([self._terminal], [], [], seconds)[0])
        if readable:
            self.drawn += os.read(self._terminal, 65536)
        return readable


@contextmanager
def shown(home: Path) -> Iterator[tuple[Shown, int]]:
    terminal, side = pty.openpty()
    termios.tcsetwinsize(side, (30, 100))
    begun = Shown(home, terminal, side)
    try:
        yield begun, side
    finally:
        begun.program.kill()
        begun.program.wait()
        os.close(terminal)
        os.close(side)


@pytest.mark.parametrize("number", [signal.SIGSTOP, pytest.param(signal.SIGTSTP, marks=pytest.mark.long)])
def test_a_stopped_program_draws_all_again_and_leaves_the_terminal_as_it_was(
    number: signal.Signals, tmp_path: Path
) -> None:
    with shown(tmp_path) as (app, side):
        before = termios.tcgetattr(side)
        app.until(lambda: b"Ask anything" in app.text)
        app.type(b"before")
        app.until(lambda: b"before" in app.text)
        for _ in range(2):
            app.program.send_signal(number)
            app.until(lambda: psutil.Process(app.program.pid).status() == psutil.STATUS_STOPPED)
            while app.read(0):
                pass
            app.drawn.clear()
            app.program.send_signal(signal.SIGCONT)
            app.until(lambda: all(each in app.text for each in (b"F5 Server", b"before", b"quit")))
        app.type(b" and after")
        app.until(lambda: b"before and after" in app.text)
        app.type(b"\x11")
        while app.program.poll() is None:
            app.read(0.05)
        assert app.program.returncode == 0
        assert termios.tcgetattr(side) == before
        for off, on in ((b"\x1b[?1049l", b"\x1b[?1049h"), (b"\x1b[?25h", b"\x1b[?25l")):
            assert app.drawn.rindex(off) > app.drawn.rindex(on)


class Driver(QuickDriver):
    """Of the real one, when it lets go of a terminal and takes it back."""

    def __init__(self, done: list[object]) -> None:
        self._loop, self._app = asyncio.get_running_loop(), SimpleNamespace(refresh=lambda layout: None)  # type: ignore[assignment]
        self._auto_restart, self._must_signal_resume, self._done = True, False, done

    def suspend_application_mode(self) -> None:
        self._done.append("let go")

    def resume_application_mode(self) -> None:
        self._done.append("taken back")

    def _is_in_background(self) -> bool:
        return False


async def test_a_stop_in_the_middle_of_a_picture_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers run wherever the program is, also where the queue to the writer is locked."""
    done = list[object]()
    driver = Driver(done)

    def stopped_and_continued(pid: int, number: int) -> None:
        done.append(number)
        driver._sigcont_application()

    monkeypatch.setattr(os, "kill", stopped_and_continued)
    driver._sigtstp_application()
    assert done == []
    await asyncio.sleep(0)
    assert done == ["let go", signal.SIGSTOP, "taken back"]
    done.clear()
    driver._must_signal_resume = False
    driver._sigcont_application()
    assert done == []
    await asyncio.sleep(0)
    assert done == ["let go", "taken back"]
