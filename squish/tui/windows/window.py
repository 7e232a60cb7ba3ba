"""What all windows have in common: ctrl+c copies what is selected in one, and otherwise closes it as escape does.

A window closes once, and itself alone: Textual takes the top screen away at each `dismiss`, whoever calls it.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from textual.app import App
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen

from squish.tui.fitted_screen import FittedScreen

Result = TypeVar("Result")


def open_once(app: App[Any], kind: type[Screen[Any]], *made_of: Any) -> None:
    """Open a window unless one of its kind is open: then what lies over that is closed. Else they would pile up."""
    if not any(isinstance(each, kind) for each in app.screen_stack):
        app.push_screen(kind(*made_of))
        return
    while not isinstance(app.screen, kind):
        app.screen.dismiss()


class ClosesOnce(FittedScreen[Result]):
    """A second key or click that was on its way when it closed does nothing."""

    def dismiss(self, result: Result | None = None) -> AwaitComplete:
        return super().dismiss(result) if self.app.screen is self else AwaitComplete()


class Window(ModalScreen[Result], ClosesOnce[Result]):
    """Lies over a screen until it has an answer. Closed with ctrl+c it has none."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "interrupt", "Close", id="window.interrupt", show=False)]

    def action_interrupt(self) -> None:
        """A field with the focus has copied its own selection before this."""
        if self.get_selected_text():
            self.action_copy_text()
        else:
            self.dismiss(None)
