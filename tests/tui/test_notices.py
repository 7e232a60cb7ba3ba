"""Notices cover neither the field that one writes in nor the message of the chat, wherever those are."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea
from textual.widgets._toast import Toast

from squish.tui.windows.line_input import LineScreen
from squish.tui.windows.model_picker import ModelPicker
from tests.tui.scenes import ready, screen_text, until
from tests.tui.scripted import MODELS, SMOL, ScriptedApp

LONG = (
    "mlx-community/Qwen3-30B-A3B-Instruct-2507-4bit: there is no room left on the disk for it, not even for half of it."
)


def covered(pilot: Pilot[None]) -> list[str]:
    """Fields that are written in, and lie below a notice."""
    screen = pilot.app.screen
    shown = [screen.find_widget(toast).visible_region for toast in screen.query(Toast)]
    fields = {screen.focused, *screen.query(TextArea)}
    written = [each for each in fields if isinstance(each, Input | TextArea) and each.region]
    return [str(each) for each in written for notice in shown if notice.overlaps(each.region)]


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
@pytest.mark.parametrize(
    "keys", ["", "ctrl+p", "ctrl+l", "ctrl+s", "ctrl+o", "ctrl+o end", "f3 /", "name", "name ctrl+p"]
)
async def test_no_notice_lies_over_what_is_being_written(keys: str, size: tuple[int, int]) -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=size, notifications=True) as pilot:
        await ready(pilot)
        for each in keys.split():
            if each == "name":
                await app.push_screen(LineScreen("Rename chat", "a"))
            else:
                await pilot.press("slash" if each == "/" else each)
        app.notify(LONG, title="Not installed", markup=False)
        app.notify("One", markup=False)
        await until(pilot, lambda: "One" in screen_text(pilot))
        await pilot.pause()
        assert covered(pilot) == []


async def test_a_notice_moves_out_of_the_way_of_a_window_that_opens_and_back() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await ready(pilot)
        app.notify("One", markup=False)
        await until(pilot, lambda: "One" in "".join(screen_text(pilot).splitlines()[:6]))
        await pilot.press("ctrl+p")
        await until(pilot, lambda: "One" in "".join(screen_text(pilot).splitlines()[-6:]))
        await pilot.press("escape")
        await until(pilot, lambda: "One" in "".join(screen_text(pilot).splitlines()[:6]))


async def test_a_notice_is_seen_once_and_not_below_a_window_as_well() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        app.notify("One", timeout=1000, markup=False)
        await until(pilot, lambda: "One" in screen_text(pilot))
        await pilot.press("ctrl+l")
        await until(pilot, lambda: isinstance(app.screen, ModelPicker) and bool(app.screen.query(Toast)))
        await until(pilot, lambda: screen_text(pilot).count("One") == 1)
        await pilot.press("escape")
        await until(pilot, lambda: "One" in "".join(screen_text(pilot).splitlines()[:6]))
