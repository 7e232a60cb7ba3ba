"""What stands in the hub's place where models are not downloaded from here: they belong to another machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from squish.text import clean
from squish.tui import status_facts
from squish.tui.fitted_screen import FittedScreen
from squish.tui.memory_readings import MemoryReadings
from squish.tui.widgets.keys import Keys
from squish.tui.widgets.places import Places
from squish.tui.widgets.status import StatusStrip

if TYPE_CHECKING:
    from squish.remote.connected import Connected

_TICK = 0.5


class ElsewhereScreen(FittedScreen[None]):
    """Says whose models these are, and how to get more of them."""

    CSS_PATH: ClassVar = ["panels.tcss", "elsewhere.tcss"]

    def __init__(self, backend: Connected, machine: MemoryReadings) -> None:
        super().__init__()
        self._backend, self._machine = backend, machine

    def compose(self) -> ComposeResult:
        yield StatusStrip()
        yield Places("hub")
        where = clean(self._backend.offers.where)
        text = Content.assemble(
            (f"The models are on {where}", "bold"),
            "\n\nThis screen would download models to this machine, where they are not used.\n",
            "Add models on that server; they are listed here a moment later",
            *_how(self._backend.program),
        )
        yield Static(text, id="elsewhere", markup=False)
        yield Keys()

    def on_mount(self) -> None:
        self._show()
        self.set_interval(_TICK, self._show)

    def _show(self) -> None:
        if self.is_current:
            facts = status_facts.of_models(self._backend.sessions.status(), self._machine)
            self.query_one(StatusStrip).facts = facts


def _how(program: str) -> tuple[str | tuple[str, str], ...]:
    """The command that adds a model there, where the program is one that we know."""
    command = next((f"{name} pull NAME" for name in ("squish", "ollama") if program.lower().startswith(name)), "")
    return (":\n\n", (f"  {command}  ", "bold $text-accent on $panel")) if command else (".",)
