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

from textual.css import stylesheet
from textual.css.stylesheet import Stylesheet
from textual.pilot import Pilot

from squish.tui import app as app_module
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


async def nothing_listens(*_: object) -> None:
    """A server that runs on this machine is asked what it is, for which more is imported."""
    raise ConnectionRefusedError


async def opened() -> dict[str, Any]:
    asyncio.open_connection = nothing_listens  # type: ignore[assignment]
    found = dict[str, Any]()
    counts, app = Counts(), ScriptedApp(*MODELS, model=SMOL.id)
    watched_collector(app, found)
    async with app.run_test() as pilot:
        await until(pilot, lambda: bool(app.engine.states))
        found["start"] = counts.since(pilot) | {"modules": sorted(sys.modules)}
        chat = app.screen
        for key in WINDOWS + SCREENS:
            await pilot.press(key)
            await until(pilot, lambda: app.screen is not chat and bool(app.screen.query("*")))
            found[key] = counts.since(pilot)
            await pilot.press("f2" if key in SCREENS else "escape")
            await until(pilot, lambda: app.screen is chat)
            counts.since(pilot)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "field-temperature")
        found["ctrl+o"] = counts.since(pilot)
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(opened())))
