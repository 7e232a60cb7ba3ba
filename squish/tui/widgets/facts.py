"""Facts between ` · ` signs: a line ends behind a sign, not in the middle of `1 min 16 s`. Knows no fact."""

from __future__ import annotations

from collections.abc import Iterator

from textual.content import Content
from textual.geometry import Size
from textual.widgets import Static

from squish.tui.widgets.shown_text import show_text

_SIGN = " · "


class FactLines(Static):
    """Plain text that is broken anew when its width changes."""

    def __init__(self, content: Content | str = "", *, id: str | None = None, classes: str | None = None) -> None:
        self._whole = Content(content) if isinstance(content, str) else content
        super().__init__(self._whole, id=id, classes=classes, markup=False)

    def say(self, content: Content) -> None:
        self._whole = content
        self._break(layout=True)

    def on_resize(self) -> None:
        self._break(layout=False)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Of the text as it will be broken: one that is laid out with the height of another may keep it."""
        return broken_at(self._whole, width).get_height({}, width) if width > 0 else 0

    def _break(self, *, layout: bool) -> None:
        show_text(self, broken_at(self._whole, self.content_size.width), layout=layout)


def broken_at(content: Content, width: int) -> Content:
    """The text with line breaks between its facts. A fact that is longer than a line is left to be wrapped by words."""
    if not width or all(line.cell_length <= width for line in content.split("\n")):
        return content
    return Content("\n").join(piece for line in content.split("\n") for piece in _lines(line, width))


def _lines(line: Content, width: int) -> Iterator[Content]:
    start, end = 0, 0  # of what is on the line so far, its sign included
    for after in _ends(line.plain):
        if end > start and line[start:after].cell_length > width:
            yield line[start:end]
            start = end + 1
        end = after
    yield line[start:]


def _ends(text: str) -> Iterator[int]:
    """Where a line may end: behind each sign, without the space that follows, and at the end."""
    at = text.find(_SIGN)
    while at >= 0:
        yield at + len(_SIGN) - 1
        at = text.find(_SIGN, at + 1)
    yield len(text)
