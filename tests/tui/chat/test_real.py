"""The TUI on the real model, through its keys."""

from __future__ import annotations

from collections.abc import Callable

from textual.pilot import Pilot

from squish.config.settings import Settings
from squish.runtime import Runtime
from squish.tui.app import SquishApp
from squish.tui.widgets.markdown.live import LiveMarkdown
from tests.conftest import MODEL
from tests.tui.scenes import note, prompt, ready, screen_text, shown


async def wait_for(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    """Wait, however long that takes; what the screen shows is in the report of a test that came to its timeout."""
    try:
        while not holds():
            await pilot.pause(0.02)
    except BaseException:
        print(screen_text(pilot))
        raise


async def command(pilot: Pilot[None], text: str) -> None:
    prompt(pilot).put(text)
    await pilot.press("enter")
    await wait_for(pilot, lambda: text.removeprefix("/set ") in screen_text(pilot))


async def test_a_chat_with_the_real_model(tireless: dict[str, str]) -> None:
    async with Runtime(Settings.from_environment(tireless | {"SQUISH_OFFLINE": "1"})) as runtime:
        app = SquishApp(runtime, MODEL)
        async with app.run_test() as pilot:
            await ready(pilot)
            await command(pilot, "/set temperature 0")
            await command(pilot, "/set max_tokens 7000")  # else a machine that is slow to stop it finds it complete
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
