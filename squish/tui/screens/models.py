"""Choosing one of the installed models: write to narrow the list, enter takes the marked one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from squish.store import Manifest
from squish.text import clean
from squish.tui import figures
from squish.tui.widgets.welcome import FIRST_MODEL

_SIZE_WIDTH = 8
_BITS_WIDTH = 14
_GAP = "  "


class ModelPicker(ModalScreen[str | None]):
    """Returns the chosen id, or None."""

    CSS_PATH = "models.tcss"
    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar = [
        Binding("escape", "dismiss", "Close", id="picker.close"),
        Binding("up", "move(-1)", "Previous", id="picker.previous", show=False, priority=True),
        Binding("down", "move(1)", "Next", id="picker.next", show=False, priority=True),
        Binding("enter", "take", "Use", id="picker.take", show=False, priority=True),
    ]

    def __init__(self, installed: Sequence[Manifest], current: str) -> None:
        super().__init__()
        self._installed = installed
        self._current = current

    def compose(self) -> ComposeResult:
        with Vertical(id="picker") as box:
            box.border_title = "Choose a model"
            box.border_subtitle = "↑↓ move · enter use · esc close"
            yield Input(placeholder="Filter", compact=True)
            yield OptionList(markup=False, compact=True)
            yield Static(id="nothing")

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = self.app.animation_level != "none"
        self.call_after_refresh(self._fill)

    @on(Input.Changed)
    def _filter_changed(self) -> None:
        self._fill()

    def on_resize(self) -> None:
        self.call_after_refresh(self._fill)

    def action_move(self, rows: int) -> None:
        options = self.query_one(OptionList)
        if rows > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()

    def action_take(self) -> None:
        self.query_one(OptionList).action_select()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)

    def _fill(self) -> None:
        options, nothing = self.query_one(OptionList), self.query_one("#nothing", Static)
        wanted = self.query_one(Input).value.strip()
        shown = [manifest for manifest in self._installed if wanted.lower() in manifest.id.lower()]
        width = options.content_size.width or self.query_one("#picker").content_size.width
        bits = max((len(_bits(manifest)) for manifest in self._installed), default=0)
        rows = [Option(self._row(manifest, width, min(bits, _BITS_WIDTH)), id=manifest.id) for manifest in shown]
        options.set_options(rows)
        if shown:
            options.highlighted = next((i for i, each in enumerate(shown) if each.id == self._current), 0)
        options.display = bool(shown)
        nothing.display = not shown
        if self._installed:
            nothing.update(Content(f"No installed model has “{clean(wanted)}” in its name."))
        else:
            nothing.update(
                Content.assemble("No model is installed yet. Run:\n\n", (f"squish pull {FIRST_MODEL}", "bold $accent"))
            )

    def _row(self, manifest: Manifest, width: int, bits_width: int) -> Content:
        """Name to the left, cut to its room; bits and size to the right."""
        bits = Content(_bits(manifest)).truncate(bits_width, ellipsis=True, pad=True)
        right = Content.assemble(_GAP, bits, f"{figures.size(manifest.size):>{_SIZE_WIDTH}}")
        name = Content(clean(manifest.id)).truncate(max(width - right.cell_length - 2, 8), ellipsis=True, pad=True)
        mark = "● " if manifest.id == self._current else "  "
        return Content.assemble((mark, "$primary"), name, right.stylize("$foreground-muted"))


def _bits(manifest: Manifest) -> str:
    """The short form of `4-bit (group 64)`."""
    return clean(manifest.quantization).partition(" (")[0]
