"""The TUI on the real model, through its keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from textual.pilot import Pilot

from squish.config import Settings
from squish.runtime import Runtime
from squish.tui.app import SquishApp
from tests.conftest import MODEL
from tests.tui_scenes import note, prompt, ready, shown


async def wait_for(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await pilot.pause(0.02)


async def test_a_chat_with_the_real_model(real_settings: Settings) -> None:
    async with Runtime(real_settings) as runtime:
        app = SquishApp(runtime, MODEL)
        async with app.run_test() as pilot:
            await ready(pilot)
            prompt(pilot).put("Count from one to three.")
            await pilot.press("enter")
            await wait_for(pilot, lambda: "TTFT" in note(pilot))
            assert shown(pilot)
            (status,) = runtime.sessions.status()
            assert (status.name, status.state) == (MODEL, "ready")

            prompt(pilot).put("Tell me a very long story about a lighthouse.")
            await pilot.press("enter")
            await wait_for(pilot, lambda: len(shown(pilot)) > 20)
            await pilot.press("escape")
            await wait_for(pilot, lambda: "stopped" in note(pilot))
            assert len(shown(pilot)) > 20
            await wait_for(pilot, lambda: runtime.sessions.status()[0].running == 0)
