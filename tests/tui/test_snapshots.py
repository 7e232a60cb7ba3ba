"""What the TUI looks like, also in another theme and in 256 colors. A wanted change is taken over with
`pytest --snapshot-update`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.strip import Strip

from squish.tui import actions
from tests.tui.at_rest import drawn_lines
from tests.tui.colors import Picture
from tests.tui.scenes import SCENES, no_package, screen_text, settled, until
from tests.tui.window_scenes import WINDOWS

ALL = SCENES | WINDOWS
SIZES = {"60x20": (60, 20), "80x24": (80, 24), "120x36": (120, 36), "160x48": (160, 48)}
LIGHT = "textual-light"
AT_EVERY_SIZE = (
    *("first-run", "hub", "library", "server", "empty", "streaming", "picker", "tool-question"),
    *("chats", "params", "compare", "details", "card", "elsewhere"),
)
EACH_TIME = {
    ("hub", "60x20"),
    ("streaming", "60x20"),
    ("streaming", "160x48"),
    ("chats", "120x36"),
}
"""The scenes and sizes, beside 80x24, that do not wait for the long tests."""


@pytest.mark.parametrize(
    ("scene", "size"),
    [
        pytest.param(scene, size, marks=() if size == "80x24" or (scene, size) in EACH_TIME else pytest.mark.long)
        for scene in ALL
        for size in SIZES
        if size == "80x24" or scene in AT_EVERY_SIZE
    ],
)
def test_looks_as_it_did(
    scene: str, size: str, snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("squish.hub.search.packaged_file", no_package)
    make, play = ALL[scene]

    async def play_out(pilot: Pilot[None]) -> None:
        await play(pilot)
        await _drawn(pilot)
        if size == "80x24":
            assert Picture(pilot).faults() == [], "in 256 colors"

    assert snap_compare(make(), terminal_size=SIZES[size], run_before=play_out)


@pytest.mark.parametrize(
    "scene",
    [
        "code",
        "hub",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in (
                *("branch", "library", "picker", "server", "compare", "params", "details", "card", "tool-question"),
                "elsewhere",
            )
        ),
    ],
)
def test_another_theme_is_complete(
    scene: str, snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chosen when everything is on the screen, as a user does it."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("squish.hub.search.packaged_file", no_package)
    make, play = ALL[scene]

    async def in_another(pilot: Pilot[None]) -> None:
        await play(pilot)
        pilot.app.theme = LIGHT
        await _drawn(pilot)
        assert Picture(pilot).faults() == [], "in 256 colors"

    assert snap_compare(make(), terminal_size=(80, 24), run_before=in_another)


@pytest.mark.parametrize(
    "scene",
    ["tools", *(pytest.param(name, marks=pytest.mark.long) for name in ALL if name not in ("tools", *AT_EVERY_SIZE))],
)
async def test_on_the_smallest_screen_the_keys_of_a_window_are_whole(
    scene: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("squish.hub.search.packaged_file", no_package)
    make, play = ALL[scene]
    app = make()
    async with app.run_test(size=SIZES["60x20"]) as pilot:
        await play(pilot)
        await _drawn(pilot)
        assert "… ─╯" not in screen_text(pilot)
        assert Picture(pilot).faults() == [], "in 256 colors"


async def _drawn(pilot: Pilot[None]) -> None:
    """Wait until what has begun is on the screen: one picture like the other, however slow the machine.

    Behind a window Textual draws what it had laid out when the window came, which depends on who was faster.
    """
    before = list[Strip]()
    while before != (before := drawn_lines(pilot.app)):
        for behind in pilot.app._background_screens:
            behind._refresh_layout()
            pilot.app.screen.refresh()
        await settled(pilot)


@pytest.mark.parametrize(
    "scene",
    [
        "streaming",
        "hub",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("branch", "chats", "library", "server")),
    ],
)
async def test_the_keys_at_the_bottom_are_whole_words(scene: str) -> None:
    make, play = ALL[scene]
    app = make()
    async with app.run_test(size=(60, 24)) as pilot:
        await play(pilot)
        words = {action.footer for action in actions.ACTIONS}

        def bottom() -> list[str]:
            return screen_text(pilot).splitlines()[-1].strip().split("  ")

        for width in (60, 80):
            await pilot.resize_terminal(width, 24)
            await until(pilot, lambda: "F1 help" in bottom())
            assert len(bottom()) >= 4
            assert all(any(each.endswith(f" {word}") for word in words if word) for each in bottom())
        await pilot.resize_terminal(160, 24)
        await until(pilot, lambda: "^q quit" in bottom())
