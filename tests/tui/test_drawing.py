"""Of a change, only what it touches is drawn, and what is drawn is what the whole screen would show there."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, Compositor
from textual.color import Color
from textual.geometry import Region, Size
from textual.pilot import Pilot
from textual.renderables.background_screen import BackgroundScreen
from textual.strip import Strip
from textual.visual import RichVisual, Visual
from textual.widget import Widget

from squish.tui.fitted_screen import FittedScreen, _ChangedParts
from squish.tui.windows.backdrop import Backdrop
from squish.tui.windows.model_picker import ModelPicker
from tests.tui.at_rest import RENDER
from tests.tui.scenes import ask, prompt, ready, shown, until
from tests.tui.scripted import MODELS, SMOL, ScriptedApp


def segments(strip: Strip) -> list[Segment]:
    return list(Strip(each for each in strip if each.text).simplify())


class Checked:
    """Compares each update with the whole screen. updates: how many; drawn: how often each kind of widget was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.updates, self.drawn = 0, Counter[str]()
        update, lines = _ChangedParts.render_partial_update, Widget.render_lines

        def counted(widget: Widget, crop: Region) -> list[Strip]:
            if not widget.BLANK:
                self.drawn[type(widget).__name__] += 1
            return lines(widget, crop)

        def compared(compositor: Any) -> ChopsUpdate | None:
            found = update(compositor)
            if found is not None:
                self.updates += 1
                before = self.drawn.copy()
                self._compare(found, compositor.render_strips())
                self.drawn = before
            return found

        monkeypatch.setattr(Compositor, "render_update", RENDER)  # at once, as a terminal would see it
        monkeypatch.setattr(Widget, "render_lines", counted)
        monkeypatch.setattr(_ChangedParts, "render_partial_update", compared)

    def _compare(self, update: ChopsUpdate, whole: list[Strip]) -> None:
        for y, start, end in update.spans:
            for stop, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=True):
                if x < end and stop > start:
                    assert strip is not None, (y, x)
                    assert segments(strip) == segments(whole[y].crop(x, stop)), (y, x)


async def walk(pilot: Pilot[None], app: ScriptedApp) -> None:
    """Something of everything that changes a part of the screen."""
    chat = app.screen
    for key in ("ctrl+b", "ctrl+o", "ctrl+o", "ctrl+l", "escape", "ctrl+p", "m", "down", "escape", "f1", "escape"):
        await pilot.press(key)
        await until(pilot, lambda key=key: key != "escape" or app.screen is chat)  # type: ignore[misc]
    for number in range(30):
        app.engine.last.say(f"{number}. one of many **lines**\n")
    await until(pilot, lambda: "29." in shown(pilot))
    await pilot.press("h", "i")
    await pilot.hover("#prompt")
    await pilot.press("pageup", "pageup", "pagedown")
    app.notify("A notice")
    await until(pilot, lambda: bool(app.screen.query("Toast")))
    await pilot.resize_terminal(70, 20)
    await until(pilot, lambda: app.screen.size.width == 70)
    app.engine.last.finish()
    await until(pilot, lambda: not app.screen.query_one("#transcript").children[-1].query(".live.-running"))
    await pilot.press("f4", "down", "f5", "f2")
    await until(pilot, lambda: app.screen is chat and prompt(pilot).text == "hi")


async def test_a_part_that_is_drawn_is_what_the_whole_screen_shows_there(monkeypatch: pytest.MonkeyPatch) -> None:
    app, checked = ScriptedApp(*MODELS, model=SMOL.id), Checked(monkeypatch)
    async with app.run_test(size=(100, 36), notifications=True) as pilot:
        await ready(pilot)
        await ask(pilot, "go")
        await walk(pilot, app)
    assert checked.updates > 20


async def test_a_line_of_an_answer_does_not_draw_the_list_of_chats_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, checked = ScriptedApp(*MODELS, model=SMOL.id), Checked(monkeypatch)
    async with app.run_test(size=(140, 36)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+b", "escape")
        await ask(pilot, "go")
        app.engine.last.say("One.")
        await until(pilot, lambda: "One." in shown(pilot))
        await pilot.pause()
        checked.drawn.clear()
        app.engine.last.say(" Two.")
        await until(pilot, lambda: "Two." in shown(pilot))
        await pilot.pause()
        assert checked.drawn["Searchable"] > 0
        assert not {"ChatList", "Places", "QuestionView", "StatusStrip"} & set(checked.drawn), checked.drawn


def seen_through(app: ScriptedApp) -> list[list[Segment]]:
    """What the windows let be seen of what lies below them."""
    return [segments(window.render_line(y)) for window in app.screen_stack[1:] for y in range(app.size.height)]


def dimmed(app: ScriptedApp) -> list[list[Segment]]:
    """The same as Textual makes it, all of it anew."""
    found = list[list[Segment]]()
    for below, window in pairwise(app.screen_stack):
        screen = RichVisual(window, BackgroundScreen(below, window.styles.background))
        found += map(segments, Visual.to_strips(window, screen, *app.size, window.visual_style))
    return found


async def test_through_windows_everything_below_is_seen_as_it_is_now() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(100, 36)) as pilot:
        await ready(pilot)
        await ask(pilot, "go")
        chat = app.screen_stack[0]
        for windows in (["ctrl+l"], ["f1"], ["ctrl+l", "f1"], ["ctrl+p", "ctrl+t"]):
            await pilot.press(*windows)
            await until(pilot, lambda many=windows: len(app.screen_stack) == len(many) + 1)  # type: ignore[misc]
            app.engine.last.say(f"A line behind {windows}.\n\n")
            await until(pilot, lambda named=str(windows): named in behind(app))  # type: ignore[misc]
            app.theme = "nord" if app.theme == "squish" else "squish"
            await pilot.pause()
            assert seen_through(app) == dimmed(app)
            await pilot.resize_terminal(90 if app.size.width == 100 else 100, 30)
            await until(pilot, lambda: all(each.size == app.size for each in app.screen_stack))
            await pilot.pause()
            assert seen_through(app) == dimmed(app)
            await pilot.press("f4")  # and what changes while another screen is in view
            app.engine.last.say(f"Elsewhere behind {windows}.\n\n")
            await pilot.press("f2")
            await until(pilot, lambda named=f"Elsewhere behind {windows}": named in behind(app))  # type: ignore[misc]
            await pilot.pause()
            assert seen_through(app) == dimmed(app)
            await pilot.press(*["escape"] * len(windows))
            await until(pilot, lambda: app.screen is chat)


def behind(app: ScriptedApp) -> str:
    return "".join(segment.text for line in dimmed(app) for segment in line)


async def test_what_changes_below_a_window_is_all_that_is_made_and_drawn_of_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, whole, changed = ScriptedApp(*MODELS, model=SMOL.id), list[str](), list[Region]()
    made = list[tuple[Region, str]]()
    rows, all_of_it, told = FittedScreen.rows, Compositor.render_full_update, ModelPicker.below_has_changed

    def counted(screen: FittedScreen[Any], wanted: Region) -> list[Strip]:
        found = rows(screen, wanted)
        made.append((wanted, "".join(strip.text for strip in found)))
        return found

    def drawn_whole(compositor: Compositor, *given: Any, **named: Any) -> Any:
        whole.append(type(compositor.root).__name__)
        return all_of_it(compositor, *given, **named)

    def has_changed(window: ModelPicker, regions: tuple[Region, ...]) -> None:
        changed.extend(regions)
        told(window, regions)

    monkeypatch.setattr(FittedScreen, "rows", counted)
    monkeypatch.setattr(Compositor, "render_update", RENDER)  # at once, as a terminal would see it
    monkeypatch.setattr(Compositor, "render_full_update", drawn_whole)
    monkeypatch.setattr(ModelPicker, "below_has_changed", has_changed)
    async with app.run_test(size=(100, 36)) as pilot:
        await ready(pilot)
        await ask(pilot, "go")
        app.engine.last.say("One.")
        await until(pilot, lambda: "One." in shown(pilot))
        await pilot.press("ctrl+l")
        await until(pilot, lambda: isinstance(app.screen, ModelPicker))
        await until(pilot, lambda: bool(made) and made[0][0].height == 36)
        await pilot.pause()
        assert [region.height for region, _ in made].count(36) == 1, "all of it once, when the window opens"
        whole.clear()
        app.engine.last.say(" Two.")
        await until(pilot, lambda: any("One. Two." in text for _, text in made))
        lines = {y for region in changed for y in region.line_range}  # a cursor blinks and a clock goes on as well
        assert {y for region, _ in made[1:] for y in region.line_range} <= lines
        below = app.screen_stack[0]
        assert isinstance(below, FittedScreen)
        [answer] = [y for y, line in enumerate(rows(below, Region(0, 0, 100, 36))) if "Two." in line.text]
        assert min(region.height for region in changed if answer in region.line_range) < 6, changed
        assert whole == []


def test_a_window_that_has_become_smaller_has_blank_lines_until_it_is_laid_out_again() -> None:
    below = FittedScreen[None]()
    line = Backdrop().line(30, below, Color(0, 0, 0, 0.5), Style(), Size(80, 30))
    assert line.text == " " * 80
