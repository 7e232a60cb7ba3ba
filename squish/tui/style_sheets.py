"""The app's style sheets, with less work than Textual makes of them.

Each is parsed once: Textual parses all of them anew for every screen that opens, a third of the first paint and half of
what a screen took to open. And the parts of a widget, such as a field's cursor and selection, are styled when they are
first drawn: most never are, and they were half of what was styled.
"""

from __future__ import annotations

from textual.cache import LRUCache
from textual.css.styles import RenderStyles
from textual.css.stylesheet import Stylesheet
from textual.dom import DOMNode

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
