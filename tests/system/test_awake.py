"""Staying awake: one program of the system for all that works at the same time, and none afterwards."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from squish.system import awake, descriptors
from squish.system.host import HOST


def test_overlapping_work_shares_one_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    starts = []

    def command(pid: int) -> tuple[str, ...]:
        assert pid == os.getpid()
        starts.append(pid)
        return sys.executable, "-c", "import time; time.sleep(600)"

    monkeypatch.setattr(HOST, "awake_command", command)
    before = {child.pid for child in psutil.Process().children()}
    with awake.awake():
        [started] = {child.pid for child in psutil.Process().children()} - before
        with awake.awake():
            assert {child.pid for child in psutil.Process().children()} - before == {started}
        assert psutil.pid_exists(started)
    assert not psutil.pid_exists(started)


def test_a_program_that_is_missing_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(HOST, "awake_command", lambda pid: (str(tmp_path / "missing"),))
    with awake.awake():
        pass


def test_256_descriptors_are_made_more(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    limits = {"now": (256, resource.RLIM_INFINITY)}
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda which, new: limits.update(now=new))
    descriptors.raise_limit()
    assert limits["now"] == (4096, resource.RLIM_INFINITY)
    limits["now"] = (256, 1000)
    descriptors.raise_limit()
    assert limits["now"] == (1000, 1000)
