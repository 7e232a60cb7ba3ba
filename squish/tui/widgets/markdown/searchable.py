"""Text in which a place that was searched for can be found again and shown. It knows lines and words, no chat."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style as TextualStyle
from textual.widgets import Static

_MARKED = re.compile("\x02(.*?)\x03", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """The words that were found, and which occurrence of one of them (from 0) is the one to show."""

    words: tuple[str, ...]
    occurrence: int = 0

    @property
    def pattern(self) -> re.Pattern[str]:
        """Any of the words, between whatever the search takes for no part of a word."""
        either = "|".join(re.escape(word) for word in self.words)
        return re.compile(rf"(?<![^\W_])(?:{either})(?![^\W_])", re.IGNORECASE)


def place(snippet: str, text: str) -> Place | None:
    """Where a snippet, with its words between \\x02 and \\x03, is in the text; None when no word is marked."""
    words = tuple(dict.fromkeys(_MARKED.findall(snippet)))
    if not words:
        return None
    before = text.find(re.sub("[\x02\x03]", "", snippet).strip("…"))
    ahead = snippet.lstrip("…").index("\x02")
    found = Place(words)
    return Place(words, len(found.pattern.findall(text[: before + ahead])) if before >= 0 else 0)


class Searchable(Static):
    """Shows as any Static does, with the words that `find` was asked for reversed."""

    _pattern: re.Pattern[str] | None = None

    def find(self, pattern: re.Pattern[str]) -> list[int]:
        """Let what it matches stand out; the line of each match, from 0."""
        self._pattern = pattern
        self.refresh()
        lines = [self.line(y).text for y in range(self.size.height)]
        return [y for y, line in enumerate(lines) for _ in pattern.findall(line)]

    def forget(self) -> None:
        """No word stands out any more."""
        if self._pattern is not None:
            self._pattern = None
            self.refresh()

    def line(self, y: int) -> Strip:
        """A line of the text, with nothing that stands out."""
        return super().render_line(y)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """What is marked with the mouse, in lines as they are shown."""
        if not self.drawn_by_rich:
            return super().get_selection(selection)
        return selection.extract("\n".join(self.line(y).text.rstrip() for y in range(self.size.height))), "\n"

    @property
    def drawn_by_rich(self) -> bool:
        """Whether it is of lines that Textual knows no text of."""
        return not isinstance(self._render(), Content)

    def render_line(self, y: int) -> Strip:
        strip = self._found(self.line(y))
        if not self.drawn_by_rich:
            return strip
        if self.text_selection and (span := self.text_selection.get_span(y)):
            start, end = (cell_len(strip.text[:at]) if at >= 0 else strip.cell_length for at in span)
            parts = strip.crop(0, start), _with(strip.crop(start, end), self._selected_style), strip.crop(end)
            strip = Strip.join(parts)
        return strip.simplify().apply_offsets(0, y)

    @property
    def _selected_style(self) -> Style:
        selected = TextualStyle.from_styles(self.screen.get_component_styles("screen--selection"))
        return (self.visual_style + selected).rich_style

    def _found(self, strip: Strip) -> Strip:
        """A line in which the words that `find` was asked for stand out."""
        if self._pattern is None or not (found := list(self._pattern.finditer(strip.text))):
            return strip
        cuts = [0, *(cell_len(strip.text[:at]) for match in found for at in match.span()), strip.cell_length]
        parts = [strip.crop(start, end) for start, end in pairwise(cuts)]
        return Strip.join(_with(part, Style(reverse=True)) if at % 2 else part for at, part in enumerate(parts))


def _with(strip: Strip, style: Style) -> Strip:
    return Strip([Segment(each.text, (each.style or Style()) + style) for each in strip], strip.cell_length)
