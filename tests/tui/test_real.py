"""The TUI on the real model, through its keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from textual.pilot import Pilot

from squish.config.settings import Settings
from squish.runtime import Runtime
from squish.tui.app import SquishApp
from squish.tui.widgets.markdown import LiveMarkdown
from tests.conftest import MODEL
from tests.tui.scenes import note, prompt, ready, screen_text, shown


async def wait_for(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(120):
            while not holds():
                await pilot.pause(0.02)
    except TimeoutError:
        raise AssertionError(f"the app never came to what the test waits for:\n{screen_text(pilot)}") from None


async def command(pilot: Pilot[None], text: str) -> None:
    prompt(pilot).put(text)
    await pilot.press("enter")
    await wait_for(pilot, lambda: text.removeprefix("/set ") in screen_text(pilot))


async def test_a_chat_with_the_real_model(real_settings: Settings) -> None:
    async with Runtime(real_settings) as runtime:
        app = SquishApp(runtime, MODEL)
        async with app.run_test() as pilot:
            await ready(pilot)
            # Chance may make any answer as long as it may be, minutes on a busy machine; the likeliest words never do.
            await command(pilot, "/set temperature 0")
            await command(pilot, "/set max_tokens 2047")
            prompt(pilot).put("Repeat the word lighthouse a thousand times.")
            await pilot.press("enter")
            await wait_for(pilot, lambda: len(shown(pilot)) > 20)
            (status,) = runtime.sessions.status()
            assert (status.name, status.state) == (MODEL, "ready")
            await pilot.press("escape")
            await wait_for(pilot, lambda: "stopped" in note(pilot))
            assert len(shown(pilot)) > 20

            await command(pilot, "/set max_tokens 24")
            prompt(pilot).put("Count from one to three.")
            await pilot.press("enter")
            await wait_for(pilot, lambda: len(pilot.app.screen.query(LiveMarkdown)) == 2 and "TTFT" in note(pilot))
            assert shown(pilot)
            await wait_for(pilot, lambda: runtime.sessions.status()[0].running == 0)
