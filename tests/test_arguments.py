"""What the programs in here say of arguments that they cannot use: a line each, and nothing is begun."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import monkey, mutants, quality, simulate, soak
from tests.arguments import count, number, several
from tests.bench.__main__ import main as bench
from tests.clients.__main__ import main as clients

WRONG: dict[str, tuple[Callable[[], Any], str, str]] = {
    "servers": (simulate.main, "--servers x/0", "--servers: 'x/0' is not a whole number, at least 1"),
    "no server": (simulate.main, "--servers 1,0", "--servers: '0' is not a whole number, at least 1"),
    "nothing": (simulate.main, "--servers 1,,10", "--servers: '' is not a whole number, at least 1"),
    "loads": (simulate.main, "--loads 0.2,nan", "--loads: 'nan' is not a number above 0"),
    "conversations": (simulate.main, "--conversations=-3", "--conversations: '-3' is not a whole number, at least 1"),
    "module": (mutants.main, "squish.nothing", "modules: 'squish.nothing' is not one of squish."),
    "every": (mutants.main, "--every 0", "--every: '0' is not a whole number, at least 1"),
    "minutes": (soak.main, "--minutes inf", "--minutes: 'inf' is not a number above 0"),
    "seeds": (monkey.main, "--seeds 9-3", "--seeds: '9-3' is not a seed, or two with a dash between them, such as "),
    "rounds": (bench, "--llama --rounds 1.5", "--rounds: '1.5' is not a whole number, at least 1"),
    "models": (bench, "--llama --models demo,2b", "--models: '2b' is not one of demo, 1b"),
    "recipe": (quality.main, "4bit 99bit", "recipes: '99bit' is not a recipe, such as 4bit, 3bit-g32 and 4.5bpw"),
    "tokens": (quality.main, "--tokens 4k", "--tokens: '4k' is not a whole number, at least 1"),
    "not installed": (quality.main, "--model nothing:1b", "--model: nothing:1b is not installed."),
    "client": (clients, "nobody", "names: 'nobody' is not one of "),
}


@pytest.mark.parametrize(("program", "given", "said"), WRONG.values(), ids=WRONG)
def test_an_argument_that_makes_no_sense_is_refused_in_one_line(
    program: Callable[[], Any],
    given: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["program", *given.split()])
    with pytest.raises(SystemExit) as refused:
        program()
    *usage, last = capsys.readouterr().err.splitlines()
    assert refused.value.code == 2
    assert f"error: argument {said}" in last
    assert usage[0].startswith("usage: ")


def test_values_are_those_of_the_text() -> None:
    assert several(count)("1, 10,1000") == [1, 10, 1000]
    assert several(number)("0.2,3") == [0.2, 3.0]


def test_no_program_here_leaves_numbers_to_argparse() -> None:
    """Its own takes what is below 1, infinite or not a number."""
    programs = [path for path in Path(__file__).parent.rglob("*.py") if "argparse" in path.read_text(encoding="utf-8")]
    assert len(programs) > 5
    assert not [path.name for path in programs if re.search(r"type=(int|float)\b", path.read_text(encoding="utf-8"))]
