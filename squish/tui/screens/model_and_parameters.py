"""What the shown chat is asked with: its model, which is loaded ahead of the first question, and its parameters.

Errors of the model stand in the chat, errors of the parameters in a corner of the screen.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from textual.content import Content
from textual.screen import Screen

from squish.chats.chats import Chats
from squish.chats.messages import ChatSettings
from squish.errors import SquishError
from squish.text import clean
from squish.tui.advice import reporting_errors
from squish.tui.chat import parameter_commands, project_files
from squish.tui.chat.conversation import Conversation
from squish.tui.chat.conversations import Conversations
from squish.tui.chat.model_choice import ModelChoice
from squish.tui.messages import ChatChanged, ModelLoaded
from squish.tui.screens import chat_windows
from squish.tui.widgets.chat.chat_panels import ChatPanels
from squish.tui.widgets.chat.turns import error_content


class ModelAndParameters:
    """chats: what is saved; open_chats: those of this run, one of which is shown in the panels."""

    def __init__(
        self, screen: Screen[None], chats: Chats, open_chats: Conversations, model: ModelChoice, panels: ChatPanels
    ) -> None:
        self._screen, self._chats, self._open, self._model = screen, chats, open_chats, model
        self._view, self._panel = panels.view, panels.params

    @property
    def _shown(self) -> Conversation:
        return self._open.shown

    async def _say(self, error: SquishError) -> None:
        await self._view.dialogue.notice(error_content(error), "error")

    # ---- the model

    async def choose_first(self, wanted: str | None) -> None:
        """The model that was asked for, or the first that is installed."""
        if wanted is not None:
            await self.choose(wanted)
        if self._shown.model:
            return
        try:
            if not await self._choose_installed():
                self._view.dialogue.welcome.show_nothing_installed(self._model.where)
        except SquishError as error:
            await self._say(error)

    async def look_again(self) -> None:
        """Take the first model when there was none: a pull in another terminal may have ended."""
        if not self._shown.model and self._shown.running is None:
            try:
                await self._choose_installed()
            except SquishError:  # said at the start already
                pass

    async def _choose_installed(self) -> bool:
        installed = self._model.installed()
        if installed:
            await self.choose(installed[0].id)
        return bool(installed)

    async def choose(self, name: str) -> None:
        """Make a model the one that answers next."""
        try:
            manifest = self._model.choose(name)
        except SquishError as error:
            await self._say(error)
            return
        with reporting_errors(self._screen.app):
            self._shown.configure(model=manifest.id)
        self._view.dialogue.welcome.show_model(manifest)
        self._view.post_message(ChatChanged())

    async def pick(self) -> None:
        """Let the user choose among those that are installed."""
        with reporting_errors(self._screen.app):
            await chat_windows.pick_model(self._screen.app, self._model.installed(), self._shown.model, self.choose)

    async def loaded(self, event: ModelLoaded) -> None:
        """Say why a model could not be loaded, unless an answer says it."""
        known = self._shown.running or any(turn.answer.error for turn in self._shown.turns[-1:])
        if event.error and event.model == self._shown.model and not known:
            await self._say(event.error)
        self._view.recount()

    # ---- parameters

    def show_parameters(self) -> None:
        with reporting_errors(self._screen.app):
            self._panel.show(self._shown.settings, self._chats.presets())

    def set(self, settings: ChatSettings) -> None:
        with reporting_errors(self._screen.app):
            self._shown.configure(settings=settings)
        self._view.recount()

    async def change(self, command: parameter_commands.Command, text: str) -> None:
        """Do what `/set`, `/system` or `/preset` was given, and say what came of it."""
        with reporting_errors(self._screen.app):
            outcome = command(self._shown.settings, self._chats, text)
            self._shown.configure(settings=outcome.settings)
            self.show_parameters()
            self._view.recount()
            heading = f"{outcome.heading}  " if outcome.heading else ""
            await self._view.dialogue.notice(Content.assemble((heading, "bold"), clean(outcome.text)))

    async def use_preset(self, text: str) -> None:
        """Do what `/preset` was given; values that its variables need are asked for one by one."""
        with reporting_errors(self._screen.app):
            if missing := parameter_commands.missing_variables(self._chats, text):

                async def answered(value: str) -> None:
                    await self.use_preset(f"{text} {shlex.quote(f'{missing[0]}={value}')}")

                await chat_windows.ask_value(self._screen.app, missing[0], answered)
            else:
                await self.change(parameter_commands.use_preset, text)

    # ---- what the project says

    def project_offer(self) -> str:
        """What the working directory has for this chat, and its size; empty where there is nothing."""
        files = project_files.found(Path.cwd())
        return project_files.about(files) if files else ""

    async def toggle_project(self) -> None:
        """Let the project's files go along with this chat, or no longer."""
        files, settings = project_files.found(Path.cwd()), self._shown.settings
        if project_files.included(settings):
            settings, said = project_files.without(settings), "The project's files are no longer in the system prompt."
        elif files:
            settings = project_files.with_project(settings, files)
            said = f"{project_files.about(files)}: in the system prompt of this chat from here on."
        else:
            names = " or ".join(project_files.NAMES)
            self._screen.app.notify(f"This folder has no {names} that can be read.", markup=False)
            return
        self.set(settings)
        self.show_parameters()
        await self._view.dialogue.notice(Content(clean(said)))
