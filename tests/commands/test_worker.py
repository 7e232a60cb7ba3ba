"""`squish worker`: what it is started with, and how it ends."""

from __future__ import annotations

import subprocess

import pytest
from click.testing import CliRunner

from squish.commands.serving.worker import worker
from squish.errors import InvalidInput
from tests.cluster.machines import BIN

WORKER = (str(BIN / "squish"), "worker", "--rank", "1")


def test_it_ends_quietly_when_the_connection_that_it_was_started_on_ends() -> None:
    done = subprocess.run(WORKER, input=b"", capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"squish agent")


def test_without_a_connection_it_says_how_it_is_started() -> None:
    done = subprocess.run(WORKER, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--join ADDRESS" in done.stderr


def test_an_address_is_looked_at_before_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQUISH_JOIN_TOKEN", raising=False)
    wrong = CliRunner().invoke(worker, ["--rank", "1", "--join", "a::b"])
    assert isinstance(wrong.exception, InvalidInput) and wrong.exception.param == "--join"
    none = CliRunner().invoke(worker, ["--rank", "1", "--join", "127.0.0.1"], input="")
    assert isinstance(none.exception, InvalidInput) and "No join token came" in none.exception.message
