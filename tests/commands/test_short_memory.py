"""The offer to load a model although memory is short: to a person a question, to a script a line."""

from __future__ import annotations

import io
import sys
from typing import cast

import pytest

from squish.commands.answers import short_memory
from squish.errors import MemoryShort
from squish.memory.reservations import Shortage
from squish.sessions.manager import SessionManager


class Sessions:
    """As on a Mac where other programs hold much."""

    def __init__(self) -> None:
        self.accepted: list[str] = []

    async def shortage(self, name: str) -> Shortage | None:
        return Shortage(name, 5_200_000_000, 3_100_000_000)

    def load_anyway(self, name: str) -> None:
        self.accepted.append(name)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def agreed(monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO, stderr: io.StringIO) -> list[str]:
    sessions = Sessions()
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stderr", stderr)
    await short_memory.agree(cast(SessionManager, sessions), "qwen3:8b")
    return sessions.accepted


async def test_a_person_is_asked_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    assert await agreed(monkeypatch, Terminal("\n"), stderr) == ["qwen3:8b"], "enter is yes"
    assert "qwen3:8b needs 5.2 GB and 3.1 GB are free" in stderr.getvalue()
    assert "Load it anyway? [Y/n]" in stderr.getvalue()


async def test_no_ends_the_command_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryShort, match=r"is not loaded: it needs 5.2 GB and 3.1 GB are free"):
        await agreed(monkeypatch, Terminal("n\n"), Terminal())


async def test_a_script_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await agreed(monkeypatch, io.StringIO(), Terminal()) == []
