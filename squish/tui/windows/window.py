"""What all windows have in common: ctrl+c copies what is selected in one, and otherwise closes it as escape does."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

Result = TypeVar("Result")


class Window(ModalScreen[Result]):
    """Lies over a screen until it has an answer. Closed with ctrl+c it has none."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "interrupt", "Close", id="window.interrupt", show=False)]

    def action_interrupt(self) -> None:
        """A field with the focus has copied its own selection before this."""
        if self.get_selected_text():
            self.action_copy_text()
        else:
            self.dismiss(None)
