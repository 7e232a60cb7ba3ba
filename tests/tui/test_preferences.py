"""The screen's theme and keys, as config.toml sets them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from squish.config import state
from squish.config.settings import Settings
from squish.errors import ConfigError
from squish.models.speeds import Speed, remember, speeds
from squish.runtime import Runtime
from squish.tui import preferences
from squish.tui.app import SquishApp
from tests.tui.scenes import until


def settings(home: Path, text: str) -> Settings:
    (home / ".squish").mkdir()
    (home / ".squish" / "config.toml").write_text(text)
    return Settings.from_environment({"HOME": str(home), "SQUISH_OFFLINE": "1"})


async def test_the_theme_and_a_key_can_be_changed(tmp_path: Path) -> None:
    chosen = settings(tmp_path, 'theme = "nord"\n[keys]\n"app.help" = "f9"\n')
    async with Runtime(chosen) as runtime:
        app = SquishApp(runtime)
        preferences.apply(app, chosen)
        async with app.run_test() as pilot:
            assert app.theme == "nord"
            await pilot.press("f9")
            await until(pilot, lambda: type(app.screen).__name__ == "HelpScreen")


async def test_a_theme_that_is_chosen_is_there_the_next_time(tmp_path: Path) -> None:
    chosen = settings(tmp_path, "")
    remember(chosen.home, "m", Speed(48.0, None, datetime(2026, 5, 1, tzinfo=UTC), "1"))
    for change, expected in (("nord", "squish"), ("dracula", "nord"), ("", "dracula")):
        async with Runtime(chosen) as runtime:
            app = SquishApp(runtime)
            preferences.apply(app, chosen)
            async with app.run_test() as pilot:
                assert app.theme == expected
                app.theme = change or app.theme
                now = app.theme
                await until(pilot, lambda now=now: state.table(chosen.home, "screen").get("theme", "squish") == now)  # type: ignore[misc]
    assert speeds(chosen.home)["m"].decode_tps == 48, "what else is remembered stays"
    (tmp_path / ".squish" / "config.toml").write_text('theme = "gruvbox"\n')
    offline = Settings.from_environment({"HOME": str(tmp_path), "SQUISH_OFFLINE": "1"})
    async with Runtime(offline) as runtime:
        app = SquishApp(runtime)
        preferences.apply(app, offline)
        async with app.run_test() as pilot:
            await pilot.pause()
            assert app.theme == "gruvbox", "config.toml has the last word"
    assert state.table(offline.home, "screen") == {"theme": "dracula"}, "and is no choice that was made here"


@pytest.mark.parametrize(
    ("text", "hint"),
    [('theme = "squsih"\n', "Did you mean squish?"), ('[keys]\n"app.hlep" = "f9"\n', "Did you mean app.help?")],
)
async def test_what_does_not_exist_is_named_with_what_is_near(tmp_path: Path, text: str, hint: str) -> None:
    chosen = settings(tmp_path, text)
    async with Runtime(chosen) as runtime:
        with pytest.raises(ConfigError) as caught:
            preferences.apply(SquishApp(runtime), chosen)
    assert caught.value.hint == hint
