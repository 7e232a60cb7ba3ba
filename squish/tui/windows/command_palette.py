"""Finding something to do by its name: write, and enter does what the marked row says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input, OptionList

from squish.text import clean
from squish.tui import palette
from squish.tui.palette import Match, PaletteEntry
from squish.tui.scheduling import after_message
from squish.tui.windows.chooser import Chooser

if TYPE_CHECKING:
    from squish.tui.app import SquishApp

_PADDING, _GAP = 1, 2
_FEW = 12  # cells; less of a description says nothing
_LETTERS = "bold underline"

Command = Callable[[], Any]


class CommandPalette(Chooser[Command | None]):
    """Returns what is to be done, or None."""

    NAMES: tuple[str, str, str] = ("commands", "Commands", "run")
    SEARCHED = "Command, model, chat, theme or parameter"
    NOTHING = "No command, model, chat, theme or parameter"

    def __init__(self) -> None:
        super().__init__()
        self._listed: list[PaletteEntry] = []  # also while nothing is written
        self._others: list[PaletteEntry] = []
        self._shown: list[Match] = []
        self._looked = False

    @property
    def _app(self) -> SquishApp:
        return cast("SquishApp", self.app)

    def compose(self) -> ComposeResult:
        yield from self.window(*self.NAMES, "", self.SEARCHED)

    def _first(self) -> list[PaletteEntry]:
        return palette.commands(self._app)

    def on_mount(self) -> None:
        self._listed = self._first()

    def on_resize(self) -> None:
        after_message(self, self._look)

    @on(Input.Changed)
    def _look(self) -> None:
        if self._written and not self._looked:
            self._looked = True
            self._look_further()
        self._show(self._at_first())

    def _at_first(self) -> PaletteEntry | None:
        """The entry that is marked; the first where it is none of those that are shown."""
        return None

    def _look_further(self) -> None:
        """Read the names, and look for servers: one that does not answer holds up neither the window nor a letter."""
        self._others = palette.named(self._app)
        find: Any = self._find_servers
        self.run_worker(find, exit_on_error=False)

    async def _find_servers(self) -> None:
        """They come after the letters that they were looked for with, and move no mark."""
        found, options = await palette.servers(self._app), self.query_one(OptionList)
        self._others += found
        if found and (at := options.highlighted) is not None:
            line = at - options.scroll_offset.y
            self._show(self._shown[at].entry)
            options.scroll_to(y=(options.highlighted or 0) - line, animate=False, immediate=True)
        elif found:
            self._show(None)

    @property
    def _written(self) -> str:
        return self.query_one(Input).value.strip()

    def _show(self, marked: PaletteEntry | None) -> None:
        written = self._written
        entries = [*self._listed, *self._others]
        self._shown = palette.found(written, entries) if written else [Match(each) for each in self._listed]
        width = self.query_one(OptionList).scrollable_content_region.width - 2 * _PADDING
        titles = max(cell_len(each.title) for each in self._listed)
        rows = [_row(each, titles, width) for each in self._shown]
        at = next((at for at, each in enumerate(self._shown) if each.entry is marked), 0)
        self.fill(rows, at, f"{self.NOTHING} matches “{clean(written)}”.")

    def taken(self, at: int) -> None:
        self.dismiss(self._shown[at].entry.run)


class ThemePicker(CommandPalette):
    """The themes alone."""

    NAMES = ("themes", "Choose a theme", "use")
    SEARCHED = "Filter"
    NOTHING = "No theme"

    def _first(self) -> list[PaletteEntry]:
        return palette.themes(self._app)

    def _at_first(self) -> PaletteEntry | None:
        return next((each for each in self._listed if each.title == self.app.theme), None)

    def _look_further(self) -> None:
        """There are no others."""


def _row(match: Match, titles: int, width: int) -> Content:
    """The title, from the same column on what it does, and to the right its key."""
    entry, title = match.entry, Content(match.entry.title)
    for at in match.places:
        title = title.stylize(_LETTERS, at, at + 1)
    room = max(width - cell_len(entry.key) - _GAP * bool(entry.key), 0)
    title = title.truncate(min(max(title.cell_length, titles), room), ellipsis=True, pad=True)
    left = room - title.cell_length - _GAP
    about = Content(entry.about if left >= _FEW else "").truncate(max(left, 0), ellipsis=True)
    row = Content.assemble(title, " " * _GAP if about else "", about.stylize("$foreground-muted"))
    return Content.assemble(row.truncate(width - cell_len(entry.key), pad=True), (entry.key, "$text-accent"))
