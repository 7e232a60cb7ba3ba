"""Several values from the user at once, one a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import DescendantFocus
from textual.widgets import Input, Static

from squish.chats.templates import Variable
from squish.tui.windows.window import Window

_WIDEST = 24  # cells of a name


class FormScreen(Window[dict[str, str] | None]):
    """Returns a value for each variable, or None. title is clean; text: what is filled, which is shown above."""

    CSS_PATH = "form.tcss"
    BINDINGS: ClassVar = [
        Binding("escape", "dismiss", "Close", id="form.close", priority=True),
        Binding("up", "app.focus_previous", "Previous", id="form.previous", show=False, priority=True),
        Binding("down", "app.focus_next", "Next", id="form.next", show=False, priority=True),
    ]

    def __init__(self, title: str, wanted: Sequence[Variable], text: str) -> None:
        super().__init__()
        self._title, self._wanted, self._text = title, tuple(wanted), text

    @property
    def about(self) -> tuple[object, ...]:
        return (*super().about, self._title)

    def compose(self) -> ComposeResult:
        width = min(max(len(each.name) for each in self._wanted), _WIDEST) + 3
        with Vertical(id="form") as box:
            box.border_title = Content(self._title)
            yield Static(self._text, id="text", markup=False)
            with VerticalScroll(can_focus=False):
                for at, each in enumerate(self._wanted):
                    name = Static(self._label(each, missing=False), id=f"name-{at}", markup=False)
                    name.styles.width = width
                    yield Horizontal(name, Input(placeholder=each.default or "", compact=True, id=f"value-{at}"))

    def on_mount(self) -> None:
        self.set_focus(self._field(0))  # now, because a letter may come right behind the key that opened this

    @on(DescendantFocus)
    def _say_keys(self) -> None:
        """Enter goes on to the next field, and the last one ends it."""
        last = len(self._wanted) - 1
        pieces = ["enter done" if self._field(last).has_focus else "enter next"]
        pieces += ["↑↓ move"] if last else []
        self.query_one("#form").border_subtitle = " · ".join([*pieces, "esc cancel"])

    def _field(self, at: int) -> Input:
        return self.query_one(f"#value-{at}", Input)

    def _label(self, variable: Variable, missing: bool) -> Content:
        if missing:
            return Content.styled(f"✕ {variable.name}", "bold $text-error")
        return Content(f"  {variable.name}")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        at = int((event.input.id or "").removeprefix("value-"))
        if at + 1 < len(self._wanted):
            self.set_focus(self._field(at + 1))
            return
        values = [self._field(each).value for each in range(len(self._wanted))]
        missing = [
            place for place, each in enumerate(self._wanted) if each.default is None and not values[place].strip()
        ]
        for place, each in enumerate(self._wanted):
            self.query_one(f"#name-{place}", Static).update(self._label(each, place in missing))
        if missing:
            self.set_focus(self._field(missing[0]))
        else:
            pairs = zip(self._wanted, values, strict=True)
            self.dismiss({each.name: value if value.strip() else each.default or "" for each, value in pairs})
