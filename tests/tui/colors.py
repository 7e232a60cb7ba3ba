"""What a terminal of 256 colors makes of a screen: the picture is taken as it is drawn, and every color is replaced by
the one that such a terminal shows in its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.color import Color, ColorSystem
from rich.style import Style
from textual.color import Color as Shade
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Button, OptionList

from squish.tui import theme
from squish.tui.contrast import DIMMED, TEXT, Light, contrast, ground_of, parsed
from squish.tui.widgets.table import Table
from tests.tui.at_rest import drawn_lines

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
        strips = drawn_lines(pilot.app)
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


FRAMES = re.compile(r"[\s\u2500-\u259f]+")
"""Lines, bars and edges: drawn, not written."""


def unreadable(pilot: Pilot[None], light: Light) -> list[str]:
    """What is written on the screen, but for what a window over it puts back, with less contrast than it must have.

    Of greys nobody can tell what was meant to be, so that all of them count as that.
    """
    app, found = pilot.app, dict[tuple[Shade, Shade], str]()
    limits, colors = _limits(app.theme_variables), app.theme_variables
    muted = {parsed(theme.opaque(colors)["foreground-muted"])}  # in a table, which Rich draws
    code = {Shade(*app.ansi_theme.ansi_colors[number]) for number in range(16)}
    for y, strip in enumerate(drawn_lines(app)):
        x = 0
        for piece in strip:
            at, x = x, x + piece.cell_length
            words, style = piece.text.strip(), piece.style or Style()
            if not words or FRAMES.fullmatch(words) or _is_below(pilot, at, y):
                continue
            assert style.color and style.bgcolor, words
            text, ground = Shade.from_rich_color(style.color), Shade.from_rich_color(style.bgcolor)
            if style.reverse:
                text, ground = ground, text
            marks = text in code or not re.search(r"\w\w", words)  # or the letter under a cursor
            least = DIMMED if text in muted or marks or app.no_color else _limit(limits, text, ground)
            if contrast(text.hex, ground, light) < least:
                found.setdefault((text, ground), f"{words!r} {text.hex} on {ground.hex} {least}")
    return list(found.values())


def _is_below(pilot: Pilot[None], x: int, y: int) -> bool:
    screen = pilot.app.screen
    return len(pilot.app.screen_stack) > 1 and screen.get_widget_at(x, y)[0] is screen


def _limits(variables: dict[str, str]) -> list[tuple[Shade, Shade, float]]:
    """Text, ground and the least contrast, of what the theme knows."""
    found = list[tuple[Shade, Shade, float]]()
    for pair in theme.PAIRS:
        for layers, least in pair.on():
            ground, value = ground_of(layers, variables), variables[pair.text]
            auto = re.fullmatch(r"auto (\d+)%", value)
            color = ground.get_contrast_text(int(auto[1]) / 100) if auto else parsed(value)
            found.append((ground + color, ground, least))
    return found


def _limit(limits: list[tuple[Shade, Shade, float]], text: Shade, ground: Shade) -> float:
    return max((least for each, below, least in limits if _near(each, text) and _near(below, ground)), default=TEXT)


def _near(one: Shade, other: Shade) -> bool:
    return all(abs(a - b) <= 1 for a, b in zip(one.rgb, other.rgb, strict=True))


def _number(color: Color | None) -> int | None:
    return None if color is None or color.is_default else color.downgrade(ColorSystem.EIGHT_BIT).number
