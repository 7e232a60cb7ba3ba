"""What the windows have in common in which one writes to narrow a list and takes the marked row of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from squish.tui.widgets.row_list import RowList
from squish.tui.windows.window import Window

Chosen = TypeVar("Chosen")

_SEPARATOR = " · "
_AROUND = 6  # cells of a border that its label cannot have


class _Box(Vertical):
    """Names its keys in the lower border: where not all have room, what everybody tries first is left out."""

    def __init__(self, *keys: str, id: str) -> None:
        super().__init__(id=id)
        self._keys = keys

    def on_resize(self) -> None:
        room, keys = self.outer_size.width - _AROUND, self._keys
        while len(keys) > 1 and cell_len(_SEPARATOR.join(keys)) > room:
            keys = keys[1:]
        self.border_subtitle = _SEPARATOR.join(keys)


class Chooser(Window[Chosen]):
    """A field, a list, and a sentence where the list is empty. The keys of the list work while one writes."""

    CSS_PATH: ClassVar = "chooser.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Close", id="chooser.close", priority=True),
        Binding("up", "move(-1)", "Previous", id="chooser.previous", show=False, priority=True),
        Binding("down", "move(1)", "Next", id="chooser.next", show=False, priority=True),
        Binding("pageup", "page(-1)", "Page up", id="chooser.page_up", show=False, priority=True),
        Binding("pagedown", "page(1)", "Page down", id="chooser.page_down", show=False, priority=True),
        Binding("ctrl+home", "first", "First", id="chooser.first", show=False, priority=True),
        Binding("ctrl+end", "last", "Last", id="chooser.last", show=False, priority=True),
        Binding("enter", "take", "Take", id="chooser.take", show=False, priority=True),
    ]

    def window(self, id: str, title: str, taking: str, written: str, placeholder: str, more: str = "") -> ComposeResult:
        """The widgets. taking: what enter does; written: what stands in the field; more: what other keys do."""
        with _Box("↑↓ move", f"enter {taking}", *filter(None, (more,)), "esc close", id=id) as box:
            box.border_title = Content(title)  # not as markup
            yield Input(written, placeholder=placeholder, compact=True)
            yield RowList(markup=False, compact=True)
            yield Static(id="nothing", markup=False)

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Input))  # now, because a letter may come right behind the key that opened this

    def fill(self, rows: Sequence[Content], marked: int, nothing: str | Content) -> None:
        """Show these rows, or say why there is none."""
        options, empty = self.query_one(OptionList), self.query_one("#nothing", Static)
        options.set_options([Option(row) for row in rows])
        if rows:
            options.highlighted = marked
        options.display, empty.display = bool(rows), not rows
        if not rows:
            empty.update(nothing)

    def action_move(self, rows: int) -> None:
        options = self.query_one(OptionList)
        if rows > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()

    def action_page(self, pages: int) -> None:
        self.query_one(RowList).page(pages)

    def action_first(self) -> None:
        self.query_one(OptionList).action_first()

    def action_last(self) -> None:
        self.query_one(OptionList).action_last()

    def action_take(self) -> None:
        """Take the marked row now: a message would come when the list may be another one."""
        at = self.query_one(OptionList).highlighted
        if at is not None:
            self.taken(at)

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        """A row that is gone by now is left alone."""
        at, options = event.option_index, event.option_list
        if at < options.option_count and options.get_option_at_index(at) is event.option:
            self.taken(at)

    def taken(self, at: int) -> None:
        """A row was chosen, of those that are shown."""
