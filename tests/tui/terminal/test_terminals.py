"""Terminals that can do less: macOS's Terminal.app has no Meta, needs fn for F-keys, and long had 256 colors."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from rich.color import Color, ColorSystem
from rich.style import Style
from textual.color import Color as Shade
from textual.theme import BUILTIN_THEMES

from squish.tui import theme
from squish.tui.actions import ACTIONS, Action
from squish.tui.server.request_state import STATES

NEEDS_FN_OR_META = re.compile(r"(.*\+)?(f\d+|pageup|pagedown|home|end)|alt\+.*")


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)
def test_every_action_is_reachable_without_meta_and_fn(action: Action) -> None:
    same = [each for each in ACTIONS if each.method.removeprefix("screen.") == action.method.removeprefix("screen.")]
    keys = [key for each in same for key in each.keys.split(",") if key]
    other = [key for key in keys if not NEEDS_FN_OR_META.fullmatch(key)]
    assert other or any(each.slash or each.palette for each in same)


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


@pytest.mark.parametrize("name", ["squish", "textual-light", "nord", "dracula"])
def test_every_color_of_a_cell_is_one_that_rich_draws(name: str) -> None:
    """Rich takes a color with a share of transparency for none at all, and says nothing."""
    own = theme.squish() if name == "squish" else BUILTIN_THEMES[name]
    colors = theme.opaque(own.to_color_system().generate() | own.variables)
    for each in ("foreground-muted", *(color for _, color in STATES.values())):
        assert Style.parse(colors[each]).color is not None
    muted, text, ground = (Shade.parse(colors[each]) for each in ("foreground-muted", "foreground", "surface"))
    assert abs(muted.brightness - ground.brightness) > 0.2
    assert muted != text
