"""The full-screen app: it owns the screens, the theme and the way in and out of the terminal.

It knows the runtime and nothing of what is behind it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial

from textual.app import App, SystemCommand
from textual.screen import Screen

from squish.config import Settings
from squish.errors import InvalidInput
from squish.runtime import Runtime
from squish.tui import actions, theme
from squish.tui.machine import Machine
from squish.tui.screens.chat import ChatScreen
from squish.tui.screens.help import HelpScreen
from squish.tui.terminal import guarded_stderr


class SquishApp(App[None], inherit_bindings=False):
    """model: the one to begin with, or None for the first that is installed. machine and clock stand in tests still."""

    TITLE = "squish"
    BINDINGS = actions.bindings("app")

    def __init__(
        self,
        runtime: Runtime,
        model: str | None = None,
        *,
        machine: Machine | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._runtime = runtime
        self._model = model
        self._machine = machine or Machine()
        self._chat_clock = clock
        self.register_theme(theme.squish())
        self.theme = theme.NAME

    async def on_mount(self) -> None:
        self.add_mode("chat", lambda: ChatScreen(self._runtime, self._model, self._machine, self._chat_clock))
        await self.switch_mode("chat")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What ctrl+p lists: the registry, and nothing besides."""
        for action in actions.in_palette():
            yield SystemCommand(action.title, action.about, partial(self.run_action, actions.qualified(action)))

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def _fatal_error(self) -> None:
        """Textual would print a traceback with local variables, prompts among them: that belongs into the log."""
        os.write(2, traceback.format_exc().encode(errors="replace"))
        self.panic("Squish met a fault of its own and had to close. The log has the details.")


def run(settings: Settings, model: str | None = None) -> int:
    """Run the app until the user leaves it; the exit code. Raises InvalidInput without a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidInput("The full-screen chat needs a terminal.", hint="Run: squish run MODEL PROMPT")
    with guarded_stderr(settings.home / "logs" / "tui.log"):
        return asyncio.run(_run(settings, model))


async def _run(settings: Settings, model: str | None) -> int:
    async with Runtime(settings) as runtime:
        app = SquishApp(runtime, model)
        await app.run_async()
        return app.return_code or 0
