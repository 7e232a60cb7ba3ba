"""`squish keys` and `squish usage` as an operator uses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from squish.api.clients.usage import UsageFile
from squish.cli import cli
from squish.errors import InvalidInput


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".squish"


def test_a_key_is_shown_once_and_listed_without_itself(home: Path) -> None:
    made = CliRunner().invoke(cli, ["keys", "add", "ci", "--model", "m", "--per-minute", "30", "--background"])
    secret = made.stdout.strip()
    assert secret.startswith("sk-squish-") and "shown only now" in made.stderr
    listed = CliRunner().invoke(cli, ["keys", "list"]).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["NAME", "ci"]
    assert "30" in listed and secret not in listed
    CliRunner().invoke(cli, ["keys", "remove", "ci"])
    assert CliRunner().invoke(cli, ["keys", "list"]).stdout == ""
    assert isinstance(CliRunner().invoke(cli, ["keys", "remove", "ci"]).exception, InvalidInput)


def test_usage_is_summed_by_key_and_model(home: Path) -> None:
    usage = UsageFile(home)
    usage.count("ci", "m", requests=1, prompt=1000)
    usage.flush()
    usage.count("ci", "m", requests=1, prompt=500, completion=7)
    usage.flush()
    shown = CliRunner().invoke(cli, ["usage"]).stdout.splitlines()
    assert shown[1].split() == ["ci", "m", "2", "1,500", "0", "7"]
    [day] = json.loads(CliRunner().invoke(cli, ["usage", "--json"]).stdout)
    assert (day["key"], day["requests"], day["completion"]) == ("ci", 2, 7)
