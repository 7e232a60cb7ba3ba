"""What a terminal of 256 colors makes of a screen: the picture is taken as it is drawn, and every color is replaced by
the one that such a terminal shows in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.color import Color, ColorSystem
from rich.style import Style
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Button, OptionList

from squish.tui.widgets.table import Table

NEAR_BLACK = frozenset({0, 16, *range(232, 242)})
"""Greys that many screens show alike."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A character, the numbers of its colors among the 256, and whether it is bold, reversed or underlined."""

    text: str
    color: int | None
    ground: int | None
    emphasis: tuple[bool, bool, bool]

    def stands_out_from(self, other: Cell) -> bool:
        if self.emphasis != other.emphasis:
            return True
        return self.ground != other.ground and not {self.ground, other.ground} <= NEAR_BLACK


class Picture:
    """The screen as it is now, cell by cell; of a wide character the first one only."""

    def __init__(self, pilot: Pilot[None]) -> None:
        self._screen = pilot.app.screen
        strips = self._screen._compositor.render_strips()
        self._cells = [
            [_cell(each, piece.style or Style()) for piece in strip for each in piece.text] for strip in strips
        ]

    def faults(self) -> list[str]:
        """What cannot be read or told apart here."""
        return [*self._hidden(), *self._same_rows(), *self._same_borders(), *self._same_buttons(), *self._same_people()]

    def _hidden(self) -> Iterator[str]:
        for line in self._cells:
            if hidden := "".join(each.text for each in line if each.color == each.ground is not None).strip():
                yield f"in the color of its ground: {hidden}"

    def _same_rows(self) -> Iterator[str]:
        """In each list, the marked row against the others."""
        for each in self._shown(Table, OptionList):
            rows = [cell for line in self._lines(each) if (cell := next((c for c in line if c.text.strip()), None))]
            if isinstance(each, OptionList):
                marked, count = each.highlighted, each.option_count
            else:
                assert isinstance(each, Table)
                marked, count = each.cursor_row, each.row_count
            if marked is not None and count > 1 and not any(a.stands_out_from(b) for a in rows for b in rows):
                yield f"no row stands out: {each!r}"

    def _same_borders(self) -> Iterator[str]:
        """What has the focus has another border than what has not."""
        bordered = [each for each in self._shown(Widget) if each.styles.border_top[0] == "round"]
        focused = {self._corner(each) for each in bordered if each.has_focus or each.has_focus_within}
        others = {self._corner(each) for each in bordered if not (each.has_focus or each.has_focus_within)}
        yield from (f"a border like that of the focus: {number}" for number in focused & others)

    def _same_buttons(self) -> Iterator[str]:
        buttons = list(self._shown(Button))
        looks = [self._cells[each.region.y][each.region.x + 1] for each in buttons]
        focused = [each.has_focus for each in buttons]
        for one, one_focused in zip(looks, focused, strict=True):
            for other, other_focused in zip(looks, focused, strict=True):
                if one_focused and not other_focused and not one.stands_out_from(other):
                    yield "the button that has the focus looks like the other"

    def _same_people(self) -> Iterator[str]:
        """A question has a bar in a color, and the name above an answer another color than its text."""
        questions = [self._cells[each.region.y][each.region.x] for each in self._shown_as(".question")]
        answers = [self._cells[each.region.y][each.region.x] for each in self._shown_as(".answer")]
        if any(one.text == other.text and one.color == other.color for one in questions for other in answers):
            yield "a question looks like an answer"

    def _shown(self, *kinds: type[Widget]) -> Iterator[Widget]:
        area = self._screen.region
        for each in self._screen.query(Widget):
            if isinstance(each, kinds) and each.display and each.region and area.contains_region(each.region):
                yield each

    def _shown_as(self, selector: str) -> Iterator[Widget]:
        transcripts = self._screen.query("#transcript")
        area = transcripts.first().content_region if transcripts else self._screen.region
        return (each for each in self._screen.query(selector) if each.region and area.contains_region(each.region))

    def _lines(self, widget: Widget) -> list[list[Cell]]:
        content = widget.content_region
        return [line[content.x : content.right] for line in self._cells[content.y : content.bottom]]

    def _corner(self, widget: Widget) -> int | None:
        return self._cells[widget.region.y][widget.region.x].color


def _cell(text: str, style: Style) -> Cell:
    emphasis = (bool(style.bold), bool(style.reverse), bool(style.underline))
    return Cell(text, _number(style.color), _number(style.bgcolor), emphasis)


def _number(color: Color | None) -> int | None:
    return None if color is None or color.is_default else color.downgrade(ColorSystem.EIGHT_BIT).number
