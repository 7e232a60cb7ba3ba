"""Keys by chance: a program that does not answer, does not end, or leaves its terminal in disorder is noticed."""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import pytest

from tests import monkey
from tests.monkey import BIG, Fault, Terminal, judge, leave, play, tried

SCREEN = "print('\\x1b[?1049h\\x1b[?25l\\x1b[?2004h', flush=True);"
BUSY = f"{SCREEN}\nwhile True: pass"
BROKEN = f"{SCREEN} import sys; sys.stdin.readline()"


def program(text: str, home: Path) -> Terminal:
    return Terminal(home, BIG, (sys.executable, "-c", text))


def test_a_program_that_computes_and_does_not_answer_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monkey, "CPU", 0.2)
    terminal = program(BUSY, tmp_path)
    try:
        with pytest.raises(Fault, match="is not drawn, after"):
            monkey.answers(terminal)
        with pytest.raises(Fault, match="it does not end, after"):
            leave(terminal)
        terminal.program.kill()
        with pytest.raises(Fault, match="it died with exit code -9"):
            judge(terminal, "")
    finally:
        terminal.close()


def test_a_terminal_that_is_left_in_disorder_is_a_fault(tmp_path: Path) -> None:
    terminal = program(BROKEN, tmp_path)
    try:
        play(terminal, random.Random(1), 600, kills=False, sizes=(BIG,))  # until it ends
        with pytest.raises(Fault, match="the terminal is not as before"):
            judge(terminal, "")
        terminal.drawn += b"\x1b[?1049l\x1b[?25h\x1b[?2004l"
        judge(terminal, "")
        with pytest.raises(Fault, match="its log has a traceback"):
            judge(terminal, "Traceback (most recent call last):")
    finally:
        terminal.close()


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 3])
def test_the_program_answers_after_keys_by_chance(seed: int, real_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(real_home, home, symlinks=True)
    assert tried(seed, 10, home) is None
