"""The app's style sheets, with less work than Textual makes of them.

Each is parsed once: Textual parses all of them anew for every screen that opens, a third of the first paint and half of
what a screen took to open. And the parts of a widget, such as a field's cursor and selection, are styled when they are
first drawn: most never are, and they were half of what was styled. Nor is a screen that is left styled and laid out
again for the style sheets of the one that opens.
"""

from __future__ import annotations

from typing import TypeVar

from textual.app import App
from textual.cache import LRUCache
from textual.css.styles import RenderStyles
from textual.css.stylesheet import Stylesheet
from textual.dom import DOMNode
from textual.widget import AwaitMount

Result = TypeVar("Result")

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

    def _process_component_classes(self, node: DOMNode) -> None:
        if names := node._get_component_classes():
            before, node._component_styles = node._component_styles, _Parts(self, node, names)
            if before:  # it was drawn with them
                node.refresh()


class _Parts(dict[str, RenderStyles]):
    """What a widget keeps the styles of its parts in."""

    def __init__(self, sheets: Stylesheet, node: DOMNode, names: frozenset[str]) -> None:
        super().__init__()
        self._sheets, self._node, self._names = sheets, node, names

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __missing__(self, name: str) -> RenderStyles:
        part = DOMNode(classes=name)
        part._attach(self._node)
        self._sheets.apply(part)
        self[name] = part.styles
        return self[name]


class StyledApp(App[Result]):
    """Styles what is shown."""

    _is_opening = False

    def update_styles(self, node: DOMNode, animate: bool = True) -> None:
        """What is on no screen yet is styled when it comes there; a widget's own options would style it before that."""
        if node.parent is not None or node is self:
            super().update_styles(node, animate)

    def _init_mode(self, mode: str) -> AwaitMount:
        self._is_opening = True
        try:
            return super()._init_mode(mode)
        finally:
            self._is_opening = False

    def refresh_css(self, animate: bool = True) -> None:
        """Style the screen in view; one that is about to be left is, when it comes back."""
        if not self._is_opening:
            super().refresh_css(animate)
