"""What all windows have in common: ctrl+c copies what is selected in one, and otherwise closes it as escape does.

A window closes once, and itself alone: Textual takes the top screen away at each `dismiss`, whoever calls it. And it
opens once: each window that lies over others is drawn through all of them, and Python's stack is not that deep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from textual.app import App
from textual.await_complete import AwaitComplete
from textual.await_remove import AwaitRemove
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.geometry import Region
from textual.screen import ModalScreen, Screen
from textual.strip import Strip
from textual.widget import AwaitMount, Widget

from squish.tui.fitted_screen import FittedScreen
from squish.tui.windows.backdrop import Backdrop

Result = TypeVar("Result")

MOST = 10
"""Windows over a screen."""


class WindowedApp(App[Result]):
    """Whatever asks for a window, and however often: where one that asks the same is open, that is shown instead."""

    def _prune(self, *nodes: Widget, parent: DOMNode | None = None) -> AwaitRemove:
        """A screen that has gone changes nothing of the one below, which Textual would lay out and draw again."""
        return super()._prune(*nodes, parent=None if parent is self else parent)

    def push_screen(
        self,
        screen: Screen[Any] | str,
        callback: Any = None,
        wait_for_dismiss: bool = False,
        *,
        mode: str | None = None,
    ) -> Any:
        """One that is not opened is as one that is closed without an answer."""
        stack = self._screen_stacks[mode or self._current_mode]
        same = next((each for each in stack if _about(screen) == _about(each)), None) if _about(screen) else None
        if same is None and not (_about(screen) and len(stack) > MOST):
            opened = super().push_screen(screen, callback, wait_for_dismiss, mode=mode)  # type: ignore[call-overload]
            if isinstance(screen, Window) and len(stack) > 1:
                stack[-2]._repaint_required = False  # it is seen through the window as it was
            return opened
        if same is not None and same in self.screen_stack:  # and not in another mode
            _uncover(self, same)
        if not wait_for_dismiss:
            return AwaitMount(self.screen, [])
        unanswered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        unanswered.set_result(None)
        return unanswered


def open_once(
    app: App[Any], kind: type[Screen[Any]], *made_of: Any, answered: Callable[[Any], Any] | None = None
) -> None:
    """Open a window; where one of its kind is open, close what lies over that."""
    if same := next((each for each in app.screen_stack if isinstance(each, kind)), None):
        _uncover(app, same)
    else:
        app.push_screen(kind(*made_of), answered)


def _about(screen: Screen[Any] | str) -> tuple[object, ...]:
    return screen.about if isinstance(screen, ClosesOnce) else ()


def _uncover(app: App[Any], window: Screen[Any]) -> None:
    while app.screen is not window:
        app.screen.dismiss()


class ClosesOnce(FittedScreen[Result]):
    """A second key or click that was on its way when it closed does nothing."""

    _is_over = False

    @property
    def about(self) -> tuple[object, ...]:
        """What it shows or asks: two windows that are equal in it are not open at once."""
        return (type(self),)

    def dismiss(self, result: Result | None = None) -> AwaitComplete:
        return super().dismiss(result) if self.app.screen is self else AwaitComplete()

    def close_when_on_top(self) -> None:
        """Close without an answer; where others lie over it, once they have gone."""
        self._is_over = True
        self.dismiss(None)

    def on_screen_resume(self) -> None:
        if self._is_over:
            self.dismiss(None)


class Window(ModalScreen[Result], ClosesOnce[Result]):
    """Lies over a screen until it has an answer. Closed with ctrl+c it has none."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "interrupt", "Close", id="window.interrupt", show=False)]

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._backdrop = Backdrop()

    def render_line(self, y: int) -> Strip:
        below, color = self._below(), self.styles.background
        if below is None or color.a == 1:
            return super().render_line(y)
        self._dirty_regions.clear()
        return self._backdrop.line(y, below, color, self.visual_style.rich_style, self.size)

    def _below(self) -> FittedScreen[Any] | None:
        stack = self.app.screen_stack
        found = stack[stack.index(self) - 1] if self in stack else self
        return found if isinstance(found, FittedScreen) and found is not self else None

    def below_has_changed(self, regions: tuple[Region, ...]) -> None:
        self._backdrop.forget(regions)
        self._set_dirty(*regions)
        self._dirty_widgets.add(self)
        self.check_idle()

    def on_screen_resume(self) -> None:
        self._backdrop.forget()  # of what changed while another screen was in view, nothing was said

    def action_interrupt(self) -> None:
        """A field with the focus has copied its own selection before this."""
        if self.get_selected_text():
            self.action_copy_text()
        else:
            self.dismiss(None)
