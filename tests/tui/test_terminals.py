"""Terminals that can do less: macOS's Terminal.app has no Meta, needs fn for F-keys, and long had 256 colors."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from rich.color import Color, ColorSystem
from textual.color import Color as Shade

from squish.tui import theme
from squish.tui.actions import ACTIONS, Action

NEEDS_FN_OR_META = re.compile(r"(.*\+)?(f\d+|pageup|pagedown|home|end)|alt\+.*")


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)
def test_every_action_is_reachable_without_meta_and_fn(action: Action) -> None:
    keys = [key for key in action.keys.split(",") if key]
    other = [key for key in keys if not NEEDS_FN_OR_META.fullmatch(key)]
    assert other or action.slash or action.palette


def test_grounds_and_texts_stay_apart_in_256_colors() -> None:
    """Near-black greys of a theme may become one color there; what must be told apart may not."""
    own = theme.squish()
    colors = own.to_color_system().generate()

    def in_256(name: str) -> Color:
        red, green, blue = Shade.parse(colors[name]).rgb
        return Color.from_rgb(red, green, blue).downgrade(ColorSystem.EIGHT_BIT)

    grounds = [in_256(name) for name in ("background", "panel")]
    texts = [in_256(name) for name in ("foreground", "primary", "secondary", "accent", "error")]
    for one, other in combinations([*grounds, *texts], 2):
        assert one.number != other.number
