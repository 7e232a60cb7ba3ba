"""Squish's own colors. Style sheets use the theme's variables only, so that every other theme works too.

What is written has the `text-` colors: on a light ground the plain ones of most themes cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from textual.color import Color
from textual.theme import Theme

NAME = "squish"


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


def opaque(variables: Mapping[str, str]) -> dict[str, str]:
    """A theme's variables for what Rich draws: it leaves out every color that lets the ground shine through."""
    ground = Color.parse(variables["surface"])
    mixed = {name: value for name, value in variables.items() if re.fullmatch("#[0-9a-fA-F]{8}", value)}
    return {**variables, **{name: (ground + Color.parse(value)).hex6 for name, value in mixed.items()}}
