"""Choosing one of the installed models: write to narrow the list, enter takes the marked one."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input, OptionList

from squish import figures
from squish.models.store import Manifest
from squish.text import clean
from squish.tui.key_hints import key
from squish.tui.scheduling import after_message
from squish.tui.short_names import short
from squish.tui.widgets.chat.welcome import FIRST_MODEL
from squish.tui.windows.chooser import Chooser

_SIZE_WIDTH = 8
_BITS_WIDTH = 14
_GAP = "  "
GET_MORE = "\n"
"""What is returned for the row that leads to the hub, with what was written behind it; never in a name."""


class ModelPicker(Chooser[str | None]):
    """Returns the chosen id, GET_MORE, or None."""

    def __init__(self, installed: Sequence[Manifest], current: str) -> None:
        super().__init__()
        self._installed = installed
        self._current = current
        self._shown: list[Manifest] = []

    def compose(self) -> ComposeResult:
        yield from self.window("picker", "Choose a model", "use", "", "Filter")

    def on_resize(self) -> None:
        after_message(self, self._fill)

    def taken(self, at: int) -> None:
        more = f"{GET_MORE}{self.query_one(Input).value.strip()}"
        self.dismiss(self._shown[at].id if at < len(self._shown) else more)

    @on(Input.Changed)
    def _fill(self) -> None:
        wanted = self.query_one(Input).value.strip()
        self._shown = [manifest for manifest in self._installed if wanted.lower() in manifest.id.lower()]
        width = self.query_one(OptionList).content_size.width or self.query_one("#picker").content_size.width
        bits = max((len(_bits(manifest)) for manifest in self._installed), default=0)
        rows = [self._row(manifest, width, min(bits, _BITS_WIDTH)) for manifest in self._shown]
        marked = next((at for at, each in enumerate(self._shown) if each.id == self._current), 0)
        command = (f"squish pull {FIRST_MODEL}", "bold $text-accent")
        nothing = Content.assemble(
            f"No model is installed yet. {key(self.app, 'app.hub')} finds one, or run:\n\n", command
        )
        missing = "" if rows else f"  No installed model has “{clean(wanted)}” in its name.\n"
        more = Content.assemble(missing, "  get more models…", (f"  {key(self.app, 'app.hub')}", "$text-accent"))
        self.fill([*rows, more] if self._installed else [], marked, nothing)

    def _row(self, manifest: Manifest, width: int, bits_width: int) -> Content:
        """Name to the left, cut to its room; bits and size to the right."""
        bits = Content(_bits(manifest)).truncate(bits_width, ellipsis=True, pad=True)
        right = Content.assemble(_GAP, bits, f"{_size(manifest):>{_SIZE_WIDTH}}")
        room = max(width - right.cell_length - 2, 8)
        whole = Content(clean(manifest.id))
        name = whole if whole.cell_length <= room else Content(short(manifest.id))
        name = name.truncate(room, ellipsis=True, pad=True)
        mark = "● " if manifest.id == self._current else "  "
        return Content.assemble((mark, "$text-primary"), name, right.stylize("$foreground-muted"))


def _size(manifest: Manifest) -> str:
    return figures.size(manifest.size) if manifest.size else ""


def _bits(manifest: Manifest) -> str:
    """The short form of `4-bit (group 64)`."""
    return figures.bits(clean(manifest.quantization))
