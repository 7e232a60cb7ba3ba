"""The wait for a server, before there is a screen: it counts, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import io
import itertools
import sys

import pytest

from squish.tui.terminal import connecting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_the_wait_for_a_server_counts_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, seconds = Terminal(), itertools.count()
    monkeypatch.setattr(sys, "__stderr__", terminal)
    monkeypatch.setattr(connecting, "TICK", 0)
    async with connecting.connecting("http://mac:11435", lambda: float(next(seconds))):
        while " … 3 s · ctrl+c stops" not in terminal.getvalue():
            await asyncio.sleep(0)
    assert terminal.getvalue().startswith("\r\x1b[2KConnecting to http://mac:11435 … 1 s")
    assert terminal.getvalue().endswith("\r\x1b[2K")


def test_the_line_fits_the_terminal() -> None:
    assert connecting.line("http://mac:11435", 0.4, 80) == "Connecting to http://mac:11435 … ctrl+c stops"
    narrow = connecting.line("http://a.very.long.name.of.a.server.example:11435", 12.0, 60)
    assert len(narrow) < 60 and narrow.endswith(" … 12 s · ctrl+c stops")
