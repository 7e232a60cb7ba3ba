"""Squish's own colors, and what is changed of other themes so that their text can be read.

Style sheets use the theme's variables only, so that every theme works. What is written has the `text-` colors: on a
light ground the plain ones of most themes cannot be read. Knows no widget.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from rich.terminal_theme import TerminalTheme
from textual.color import Color
from textual.theme import Theme

from squish.tui.contrast import DIMMED, Light, Pair, contrast, ground_of, light_in, parsed, stronger, weaker

NAME = "squish"
OURS = {
    "quiet": "$footer-description-foreground",
    "on-primary": "$background",
    "on-toast": "$foreground",
    "placeholder": "auto 40%",
    "arrow": "$foreground 50%",
    "row": "$primary 25%",
    "row-style": "none",
    "bold-row-style": "bold",
    "table-row-style": "bold",
}
"""Variables beside those of Textual: the footer's text on the ground of all other text, the name of the screen that is
on, the text of a notice, what an empty field of several lines says, the arrow of a list that unfolds, and the ground
and styles of the row that the keys act on."""

_ANSI = {
    "row": "ansi_default",
    "row-style": "bold underline",
    "bold-row-style": "bold underline",
    "table-row-style": "bold reverse",
}
"""Where colors cannot be mixed: a row in one color of the terminal's would hide what is written in another one.

Textual reverses the rows of tables only.
"""

_PLAIN = ("background", "surface", "background + foreground 5%", "surface + foreground 5%")
_FIELDS = ("background", "surface", "panel", "surface + foreground 5%", "panel + foreground 5%")
_WRONG = ("surface + error 20%", "panel + error 20%")
_BLURRED = ("background + block-cursor-blurred-background", "surface + block-cursor-blurred-background")
_ROWS = (
    *("panel", "background + primary 25%", "surface + primary 25%", "background + foreground 5% + primary 25%"),
    *_BLURRED,
)
_QUESTION, _FAILED = "background + primary 20%", "background + error 10%"
_TOAST = "panel-lighten-1"


def _pairs() -> Iterator[Pair]:
    """Marks come first: their colors are in the grounds of what follows."""
    for name in ("primary", "accent", "success", "error"):
        yield Pair(name, ("background", "surface"), DIMMED)
    yield Pair("warning", ("background", "surface"))
    yield Pair("foreground", (*_PLAIN, *_FIELDS, *_WRONG, *_ROWS, _QUESTION, _FAILED))
    yield Pair("text-accent", (*_PLAIN, "panel", *_BLURRED), marking=(*_ROWS, _QUESTION))
    for name in ("primary", "secondary"):
        yield Pair(f"text-{name}", _PLAIN, marking=_ROWS)
    yield Pair("text-error", (*_PLAIN, _FAILED), marking=(*_ROWS, _TOAST))
    for name in ("success", "warning"):
        yield Pair(f"text-{name}", _PLAIN, marking=(*_ROWS, _TOAST))
    yield Pair("foreground-muted", (*_PLAIN, *_ROWS, _QUESTION, _FAILED), DIMMED)
    for name in ("placeholder", "text-disabled"):
        yield Pair(name, _FIELDS, DIMMED)
    yield Pair("quiet", ("background", "surface"))
    yield Pair("on-primary", ("primary",))
    yield Pair("on-toast", (_TOAST,))
    for name in ("key", "description"):
        yield Pair(f"footer-{name}-foreground", ("background + footer-background",))
    yield Pair("block-cursor-foreground", ("surface + block-cursor-background",))
    yield Pair("block-cursor-blurred-foreground", _BLURRED)
    yield Pair("input-cursor-foreground", ("surface + input-cursor-background",))
    selected = tuple(f"{each} + input-selection-background" for each in _FIELDS)
    yield Pair("input-selection-foreground", selected, tint="input-selection-background")
    yield Pair("button-foreground", ("surface", "surface + foreground 5%"))
    yield Pair("arrow", ("surface", "surface + foreground 5%"), DIMMED)
    yield Pair("button-color-foreground", ("error",))


_BY_MOUSE = tuple(f"{each} + screen-selection-background" for each in ("background", "surface", _QUESTION))
_KEPT = (
    Pair("foreground", _BY_MOUSE),
    *(Pair(f"text-{each}", (), marking=_BY_MOUSE) for each in ("accent", "error", "primary", "secondary", "warning")),
    Pair("foreground-muted", (), marking=_BY_MOUSE),
)
"""What keeps its colors when the mouse selects it, unless one of these cannot be read then."""
_SELECTED = Pair("foreground", _BY_MOUSE, tint="screen-selection-background")
PAIRS = tuple(_pairs())


def squish() -> Theme:
    return Theme(
        name=NAME,
        primary="#7cc4a4",
        secondary="#8fb3e0",
        accent="#e8b06a",
        success="#7cc4a4",
        warning="#e8c46a",
        error="#ec7f84",
        foreground="#d9dde4",
        background="#14161a",
        surface="#1b1e24",
        panel="#252932",
        dark=True,
        variables={
            "footer-background": "#14161a",
            "footer-item-background": "#14161a",
            "footer-key-background": "#14161a",
            "footer-key-foreground": "#e8b06a",
            "footer-description-background": "#14161a",
            "footer-description-foreground": "#8b93a1",
            "text-primary": "#7cc4a4",
            "text-secondary": "#8fb3e0",
            "text-accent": "#e8b06a",
            "text-success": "#7cc4a4",
            "input-selection-background": "#7cc4a4 30%",
        },
    )


class ReadableThemes:
    """The themes as they can be read in this terminal, each of which is worked out once.

    color_system, no_color: as Textual knows them of the terminal.
    """

    def __init__(self, color_system: str | None, no_color: bool) -> None:
        self._light = light_in(color_system, no_color)
        self._variables = dict[str, dict[str, str]]()
        self._code = dict[str, TerminalTheme]()

    def variables(self, name: str, given: Mapping[str, str]) -> dict[str, str]:
        if name not in self._variables:
            self._variables[name] = readable(given, self._light)
        return self._variables[name]

    def code(self, name: str, colors: TerminalTheme, variables: Callable[[], Mapping[str, str]]) -> TerminalTheme:
        """The colors of code; it is asked for them at every line, and for the variables once."""
        if name not in self._code:
            self._code[name] = readable_code(colors, variables(), self._light)
        return self._code[name]


def with_ours(variables: Mapping[str, str]) -> dict[str, str]:
    ours = {name: re.sub(r"\$(\S+)", lambda it: variables[it[1]], value) for name, value in OURS.items()}
    return {**variables, **ours}


def readable(variables: Mapping[str, str], light: Light) -> dict[str, str]:
    """A theme's variables and ours; a color that cannot be read on one of its grounds becomes stronger.

    It goes as far towards black or white as it must. Colors that only the terminal knows are left as they are.
    """
    found = with_ours(variables)
    if parsed(variables["background"]).ansi is not None:
        return found | _ANSI | {"placeholder": variables["text-disabled"]}
    for pair in PAIRS:
        found[pair.text] = _settled(pair, found, light)
    found["row"] = f"{found['primary']} 25%"  # of the color that has become stronger
    if any(contrast(found[each.text], ground_of(layers, found), light) < least
           for each in _KEPT for layers, least in each.on()):  # fmt: skip
        found["screen-selection-foreground"] = _settled(_SELECTED, found, light)
    return found


def _settled(pair: Pair, found: dict[str, str], light: Light) -> str:
    """The color of the text; its tint is changed in place."""
    value, enough = stronger(found[pair.text], pair, found, light)
    while pair.tint and not enough:
        found[pair.tint] = weaker(found[pair.tint])
        value, enough = stronger(found[pair.text], pair, found, light)
    return value


def readable_code(colors: TerminalTheme, variables: Mapping[str, str], light: Light) -> TerminalTheme:
    """The sixteen colors that code is written in, as they can be read on a theme's surface."""
    if parsed(variables["background"]).ansi is not None:
        return colors
    pair = Pair("code", ("surface",), DIMMED)

    def changed(color: tuple[int, int, int]) -> tuple[int, int, int]:
        return Color.parse(stronger(Color(*color).hex, pair, variables, light)[0]).rgb

    sixteen = [changed(colors.ansi_colors[number]) for number in range(16)]
    return TerminalTheme(colors.background_color, colors.foreground_color, sixteen[:8], sixteen[8:])


def opaque(variables: Mapping[str, str]) -> dict[str, str]:
    """A theme's variables for what Rich draws: it leaves out every color that lets the ground shine through."""
    ground = Color.parse(variables["surface"])
    mixed = {name: value for name, value in variables.items() if re.fullmatch("#[0-9a-fA-F]{8}", value)}
    return {**variables, **{name: (ground + Color.parse(value)).hex6 for name, value in mixed.items()}}
