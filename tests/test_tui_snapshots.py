"""What the TUI looks like. A wanted change is taken over with `pytest --snapshot-update`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.tui_scenes import SCENES

SIZES = {"60x20": (60, 20), "80x24": (80, 24), "120x36": (120, 36)}
ALSO_WIDE = ("chats", "params")
AT_EVERY_SIZE = ("first-run", "hub", "library", "server", "empty", "streaming", "picker")


@pytest.mark.parametrize(
    ("scene", "size"),
    [
        (scene, size)
        for scene in SCENES
        for size in SIZES
        if size == "80x24" or scene in AT_EVERY_SIZE or (size == "120x36" and scene in ALSO_WIDE)
    ],
)
def test_looks_as_it_did(
    scene: str, size: str, snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    make, play = SCENES[scene]
    assert snap_compare(make(), terminal_size=SIZES[size], run_before=play)
