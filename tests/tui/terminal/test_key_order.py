"""Keys that arrive faster than they can be worked through take effect as if they had been pressed one by one."""

from __future__ import annotations

import asyncio

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.events import Key, Paste
from textual.pilot import Pilot
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, Static

from tests.tui.scenes import prompt, ready, until
from tests.tui.scripted import MODELS, SMOL, ScriptedApp


def burst(pilot: Pilot[None], *keys: str) -> None:
    """Keys in one piece, as a terminal delivers them when the program is busy."""
    for key in keys:
        pilot.app.post_message(Key(key, key if len(key) == 1 else None))


def value(pilot: Pilot[None], field: str) -> str:
    return pilot.app.screen.query_one(f"#field-{field}", Input).value


async def test_what_is_typed_right_after_tab_is_for_the_next_field() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test(size=(100, 36)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: app.focused is app.screen.query_one("#field-temperature"))
        burst(pilot, "0", "full_stop", "tab", "1", "tab", "4", "0", "shift+tab", "shift+tab", "5")
        for event in (Key("0", "0"), Key("tab", "\t"), Paste("7")):
            app.post_message(event)
        await until(pilot, lambda: value(pilot, "top_p") == "17")
        assert value(pilot, "top_k") == "40"


async def test_a_screen_that_is_busy_does_not_keep_the_user_from_quitting() -> None:
    """What a handler of the screen waits for holds the key back once, not when it is pressed again."""
    app, free = ScriptedApp(*MODELS, model=SMOL.id), asyncio.Event()
    async with app.run_test() as pilot:
        await ready(pilot)
        app.screen.call_later(free.wait)
        burst(pilot, "up", "x", "ctrl+q", "ctrl+q")
        while app.is_running:
            await asyncio.sleep(0)
        free.set()


async def test_thousands_of_keys_that_wait_keep_no_program_from_ending() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test() as pilot:
        await ready(pilot)
        burst(pilot, *("up",) * 2000)
        while len(app._keys._held) < 1500:
            await asyncio.sleep(0)
        app.exit(return_code=143)
        while app.is_running:
            await asyncio.sleep(0)
    assert app.return_code == 143 and not app._keys._held


async def test_what_is_typed_right_after_a_window_was_opened_is_for_the_window() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test() as pilot:
        await ready(pilot)
        burst(pilot, "h", "i", "ctrl+s", "w", "o", "r", "d", "escape", "x")
        await until(pilot, lambda: not isinstance(app.screen, ModalScreen) and prompt(pilot).text == "hix")


class Leaving(Static, can_focus=True):
    """Holds a key that climbs until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.free = asyncio.Event(), asyncio.Event()

    async def on_key(self) -> None:
        self.reached.set()
        await self.free.wait()


class LeavingScreen(Screen[None]):
    def compose(self) -> ComposeResult:
        with Vertical(id="around"):
            yield Leaving()
        yield Input(id="stays")


async def test_what_is_typed_while_a_key_climbs_through_a_widget_that_goes_away_is_for_the_one_that_stays() -> None:
    app = ScriptedApp(*MODELS, model=SMOL.id)
    async with app.run_test() as pilot:
        await ready(pilot)
        await app.push_screen(LeavingScreen())
        leaving = app.screen.query_one(Leaving)
        leaving.focus()
        await until(pilot, lambda: app.focused is leaving)
        burst(pilot, "x", "h", "i")
        await leaving.reached.wait()
        removed = app.screen.query_one("#around").remove()
        leaving.free.set()
        await until(pilot, lambda: app.screen.query_one("#stays", Input).value == "hi")
        await removed
