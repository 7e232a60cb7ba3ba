"""What all applications of these tests have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from textual import constants
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet
from textual.pilot import Pilot

from tests.conftest import PATIENCE


@pytest.fixture(scope="package", autouse=True)
def _patient() -> Iterator[None]:
    """Textual's pilot gives up when the widgets have not done within 30 seconds what they were sent."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Pilot._wait_for_screen, "__defaults__", (PATIENCE,))
        yield


@pytest.fixture(scope="package", autouse=True)
def _all_colors() -> Iterator[None]:
    """What is drawn does not depend on the terminal that the tests run in: with fewer colors other ones are chosen."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(constants, "COLOR_SYSTEM", "truecolor")
        yield


@pytest.fixture(scope="package", autouse=True)
def _parsed_once() -> Iterator[None]:
    """Style sheets are the same for every application, and parsing them, three times each, is a third of its start."""
    parsed: dict[tuple[object, ...], list[RuleSet]] = {}
    parse = Stylesheet._parse_rules

    def known(
        self: Stylesheet, css: str, read_from: tuple[str, str], *more: bool | int | str, **named: bool | int | str
    ) -> list[RuleSet]:
        key = (css, read_from, more, frozenset(named.items()), frozenset(self._variables.items()))
        if key not in parsed:
            parsed[key] = parse(self, css, read_from, *more, **named)  # type: ignore[arg-type]
        return parsed[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Stylesheet, "_parse_rules", known)
        yield
