"""What all applications of these tests have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from textual import app, constants, pilot, screen
from textual._compositor import Compositor
from textual._context import active_app
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet
from textual.pilot import Pilot

from tests.conftest import PATIENCE
from tests.tui.at_rest import at_rest, render_later


@pytest.fixture(scope="package", autouse=True)
def _patient() -> Iterator[None]:
    """Textual's pilot gives up when the widgets have not done within 30 seconds what they were sent."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Pilot._wait_for_screen, "__defaults__", (PATIENCE,))
        yield


@pytest.fixture(scope="package", autouse=True)
def _resting() -> Iterator[None]:
    """Between keys, and where it is asked to pause, a pilot waits for the application to be at rest.

    Then all that is to be seen is drawn, and not before: a quarter of the CPU of these tests was pictures in between.
    """

    async def between_keys(*_: float) -> None:
        await at_rest(active_app.get(), draw=False)

    async def pause(*_: float) -> None:
        await at_rest(active_app.get())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(app, "wait_for_idle", between_keys)
        patched.setattr(pilot, "wait_for_idle", pause)
        patched.setattr(Compositor, "render_update", render_later)
        patched.setattr(screen, "UPDATE_PERIOD", 0.2)
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
