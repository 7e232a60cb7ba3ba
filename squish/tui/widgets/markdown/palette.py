"""The theme's colors as Rich takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rich.theme import Theme


@dataclass(frozen=True, slots=True)
class Palette:
    """The theme's colors for frozen text, as Rich takes them; "default" where the theme leaves one to the terminal."""

    primary: str
    warning: str
    muted: str
    surface: str
    dark: bool

    @classmethod
    def of(cls, variables: Mapping[str, str], dark: bool) -> Palette:
        def color(name: str) -> str:
            value = variables.get(name, "")
            return value if re.fullmatch("#[0-9a-fA-F]{6}", value) else "default"

        return cls(color("text-primary"), color("text-warning"), color("quiet"), color("surface"), dark)

    def theme(self) -> Theme:
        headings = {f"markdown.h{level}": f"bold {self.primary}" for level in range(1, 7)}
        return Theme(
            headings
            | {
                "markdown.code": self.warning,
                "markdown.code_block": f"on {self.surface}",
                "markdown.item.bullet": self.primary,
                "markdown.item.number": self.primary,
                "markdown.list": "default",
                "markdown.block_quote": self.muted,
                "markdown.link": "underline",
                "markdown.link_url": f"underline {self.muted}",
                "markdown.table.header": self.primary,
                "markdown.table.border": self.muted,
            }
        )
