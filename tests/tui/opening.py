"""Opens screens and windows one after the other and prints what each took, counted: `python -m tests.tui.opening`.

In a process of its own, since only there nothing has been imported before.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Callable
from typing import Any

from textual import content
from textual._compositor import Compositor
from textual.css import stylesheet
from textual.css.stylesheet import Stylesheet
from textual.geometry import Region
from textual.pilot import Pilot
from textual.screen import Screen
from textual.strip import Strip

from squish.tui import app as app_module
from squish.tui.fitted_screen import FittedScreen
from tests.tui.at_rest import at_rest
from tests.tui.scripted import MODELS, SMOL, ScriptedApp

WINDOWS = ("ctrl+p", "f1", "ctrl+l", "ctrl+s", "ctrl+t")
SCREENS = ("f3", "f4", "f5")


class Counts:
    """What has been done since the last look."""

    def __init__(self) -> None:
        self.styled = 0
        self.sheets: list[str] = []
        self._modules = set(sys.modules)
        self._sheets: set[str] = set()
        apply, parse = Stylesheet.apply, stylesheet.parse  # type: ignore[attr-defined]

        def counted_apply(*given: Any, **named: Any) -> None:
            self.styled += 1
            apply(*given, **named)

        def counted_parse(scope: str, css: str, *given: Any, **named: Any) -> Any:
            self.sheets.append(css)
            return parse(scope, css, *given, **named)

        Stylesheet.apply = counted_apply  # type: ignore[method-assign]
        stylesheet.parse = counted_parse  # type: ignore[attr-defined]

    def since(self, pilot: Pilot[None]) -> dict[str, Any]:
        """widgets: on the whole screen; styled: widgets and their parts; parsed again: style sheets known before."""
        imported, known = set(sys.modules) - self._modules, self._sheets
        found = {
            "widgets": len(list(pilot.app.screen.query("*"))),
            "modules": sorted(each for each in imported if each.startswith(("squish", "textual"))),
            "styled": self.styled,
            "parsed again": len(set(filter(None, self.sheets)) & known),
        }
        self._modules, self._sheets = set(sys.modules), known | set(self.sheets)
        self.styled, self.sheets = 0, []
        return found


class Drawings:
    """How often Textual lays out and draws a screen that opens, and looks where a line is to be broken. told: the
    screens that were told a size, in order; dimmed: lines of the screen below a window; whole: how often all of a
    screen is drawn."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.layouts, self.in_this_tick, self.most_in_a_tick, self.breaks, self.dimmed = 0, 0, 0, 0, 0
        self.whole = 0
        divide = content.divide_line  # type: ignore[attr-defined]
        made = FittedScreen.rows
        lay_out, draw, tick = Screen._refresh_layout, Compositor.render_update, Screen._on_timer_update
        draw_whole = Compositor.render_full_update

        def counted_layout(screen: Screen[Any], size: Any = None, *given: Any, **named: Any) -> None:
            self.layouts += 1
            self.told += [type(screen).__name__] if size else []
            lay_out(screen, size, *given, **named)

        def counted_drawing(*given: Any, **named: Any) -> Any:
            update = draw(*given, **named)
            self.in_this_tick += update is not None
            return update

        def counted_rows(screen: FittedScreen[Any], rows: Region) -> list[Strip]:
            self.dimmed += rows.height
            return made(screen, rows)

        def counted_tick(screen: Screen[Any]) -> None:
            self.in_this_tick = 0
            tick(screen)
            self.most_in_a_tick = max(self.most_in_a_tick, self.in_this_tick)

        def counted_break(*given: Any, **named: Any) -> list[int]:
            self.breaks += 1
            return divide(*given, **named)  # type: ignore[no-any-return]

        def counted_whole(*given: Any, **named: Any) -> Any:
            self.whole += 1
            return draw_whole(*given, **named)

        Compositor.render_full_update = counted_whole  # type: ignore[method-assign]
        content.divide_line = counted_break  # type: ignore[attr-defined]
        Screen._refresh_layout = counted_layout  # type: ignore[method-assign,assignment]
        Compositor.render_update = counted_drawing  # type: ignore[method-assign]
        FittedScreen.rows = counted_rows  # type: ignore[method-assign,assignment]
        Screen._on_timer_update = counted_tick  # type: ignore[method-assign,assignment]

    def since(self) -> dict[str, Any]:
        found = {"told": self.told, "layouts": self.layouts, "drawn in a tick": self.most_in_a_tick}
        found |= {"lines looked at": self.breaks, "dimmed": self.dimmed, "whole": self.whole}
        self.told, self.layouts, self.most_in_a_tick, self.breaks, self.dimmed, self.whole = [], 0, 0, 0, 0, 0
        return found


def watched_collector(app: ScriptedApp, found: dict[str, Any]) -> None:
    """What the collector has done when it is put to work again; and whether something is to be seen then."""
    gc.disable()  # as `squish` does before its imports
    collections: list[str] = []
    gc.callbacks.append(lambda phase, info: collections.append(phase))
    collect_again = app_module.collect_again  # type: ignore[attr-defined]

    def watched() -> None:
        found["collected before the first picture"] = len(collections)
        found["drawn"] = [type(each).__name__ for each in app.screen.query("*") if each.region.area]
        collect_again()
        found["collecting"], found["frozen"] = gc.isenabled(), gc.get_freeze_count()

    app_module.collect_again = watched  # type: ignore[attr-defined]


async def until(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    """Like `until` in scenes, which would import what a window brings along."""
    while not holds():
        await at_rest(pilot.app)
        await asyncio.sleep(0.005)
    await at_rest(pilot.app)


async def opened() -> dict[str, Any]:
    found, looked_at = dict[str, Any](), list[object]()

    async def nothing_listens(_: object, port: object) -> None:
        """A server that runs on this machine is asked what it is, for which more is imported."""
        looked_at.append(port)
        raise ConnectionRefusedError

    asyncio.open_connection = nothing_listens  # type: ignore[assignment]
    drawings = Drawings()
    counts, app = Counts(), ScriptedApp(*MODELS, model=SMOL.id)
    watched_collector(app, found)
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(app.engine.states))
        found["start"] = counts.since(pilot) | drawings.since() | {"modules": sorted(sys.modules)}
        chat = app.screen
        for key in WINDOWS + SCREENS:
            await pilot.press(key)
            await until(pilot, lambda: app.screen is not chat and bool(app.screen.query("*")))
            found[key] = counts.since(pilot) | drawings.since() | {"screen": type(app.screen).__name__}
            if key == "ctrl+p":
                found["looked at"] = len(looked_at)
                await pilot.press("c")
                await until(pilot, lambda: bool(looked_at))
            await at_rest(app)
            drawings.since()
            await pilot.press("f2" if key in SCREENS else "escape")
            await until(pilot, lambda: app.screen is chat)
            await at_rest(app)
            counts.since(pilot)
            found[key]["layouts to close"] = drawings.since()["layouts"]
        await pilot.press("ctrl+o")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "field-temperature")
        found["ctrl+o"] = counts.since(pilot)
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(opened())))
