"""The screen's theme and keys, as config.toml sets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from squish.config import Settings
from squish.errors import ConfigError
from squish.runtime import Runtime
from squish.tui import preferences
from squish.tui.app import SquishApp


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
            assert type(app.screen).__name__ == "HelpScreen"


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
