"""The documents say what the program does: commands, flags, variables and reference pages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from squish.cli import cli
from squish.config import ELSEWHERE, KEYS
from tests import reference

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", list(reference.pages()))
def test_a_reference_page_is_what_the_program_says(name: str) -> None:
    assert (reference.DIRECTORY / name).read_text(encoding="utf-8") == reference.pages()[name], "run: make docs"


def written_commands(page: Path) -> Iterator[list[str]]:
    """The words behind `squish` in every line of code."""
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        if not (fenced or line.startswith("    ")):
            continue
        if match := re.match(r"\s*(?:.*\| )?(?:\.venv/bin/)?squish(?= |$)(.*)", line):
            yield shlex.split(match[1].split(" > ")[0].split(" | ")[0], comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_command_and_flag_exists(page: Path) -> None:
    for words in written_commands(page):
        command: click.Command = cli
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{page.name}: squish {words[0]}"
            command = command.commands[words.pop(0)]
        known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known | {"--help"}, f"{page.name}: {command.name} {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_variable_and_link_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    variables = {key.variable for key in KEYS} | {name for name, _, _ in ELSEWHERE}
    assert set(re.findall(r"\b(?:SQUISH|HF)_[A-Z_]+\b", text)) <= variables
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
