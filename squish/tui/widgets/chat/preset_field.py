"""The row of the parameters that names the preset they are; enter or a click chooses another."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from squish.text import clean
from squish.tui.widgets.shown_text import show_text

_CUSTOM = "custom"


class PresetField(Static, can_focus=True):
    """One widget, where a drop-down list is six and a fifth of what the panel took to open."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space,down", "screen.pick_preset", "choose", key_display="⏎", id="preset.choose")
    ]

    def __init__(self) -> None:
        super().__init__(_CUSTOM, id="preset", markup=False)
        self._name = ""

    def name_preset(self, name: str) -> None:
        """name: of the preset that the settings are; empty where they are none."""
        self._name = name
        self._show()

    def on_resize(self) -> None:
        self._show()

    async def on_click(self) -> None:
        await self.run_action("screen.pick_preset")

    def _show(self) -> None:
        name = Content.styled(clean(self._name)) if self._name else Content.styled(_CUSTOM, "$placeholder")
        room = max(self.content_size.width - 2, 1)
        shown = Content.assemble(name.truncate(room, ellipsis=True, pad=True), (" ▼", "$arrow"))
        show_text(self, shown, layout=False)
