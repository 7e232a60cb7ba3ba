"""What the shown chat is asked with: its model, which is loaded ahead of the first question, and its parameters.

Errors of the model stand in the chat, errors of the parameters in a corner of the screen.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.content import Content
from textual.screen import Screen

from squish.chats import defaults
from squish.chats.defaults import Defaults
from squish.chats.messages import ChatSettings
from squish.chats.presets import all_of, preset_of
from squish.errors import InvalidInput, SquishError, StoreError
from squish.sessions.backend import Backend
from squish.system.working_directory import working_directory
from squish.text import clean
from squish.tui.advice import reporting_errors
from squish.tui.chat import parameters, project_files
from squish.tui.chat.conversation import Conversation
from squish.tui.chat.conversations import Conversations
from squish.tui.chat.model_choice import ModelChoice
from squish.tui.messages import ChatChanged, ModelLoaded
from squish.tui.screens import chat_windows
from squish.tui.widgets.chat.chat_panels import ChatPanels

if TYPE_CHECKING:
    from squish.tui.chat.parameter_commands import Command

_TYPING = 0.5  # seconds without a key in a field, after which it is looked at


class ModelAndParameters:
    """open_chats: those of this run, one of which is shown in the panels."""

    def __init__(
        self, screen: Screen[None], runtime: Backend, open_chats: Conversations, model: ModelChoice, panels: ChatPanels
    ) -> None:
        self._screen, self._chats, self._open, self._model = screen, runtime.chats, open_chats, model
        self._settings, self._fixed = runtime.settings, runtime.offers.fixed
        self._view, self._panel, self._sessions = panels.view, panels.params, runtime.sessions

    @property
    def _shown(self) -> Conversation:
        return self._open.shown

    async def _say(self, error: SquishError) -> None:
        from squish.tui.widgets.chat.turns import error_content

        await self._view.dialogue.notice(error_content(error, self._view.app), "error")

    # ---- the model

    async def choose_first(self, wanted: str | None) -> None:
        """The model that was asked for, that of the last chat, or the first that is installed."""
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
        """Take the first model when there was none: a pull in another terminal may have ended. See whether the shown
        chat's own was installed meanwhile, or deleted."""
        if not self._shown.model and self._shown.running is None:
            try:
                await self._choose_installed()
            except SquishError:  # said at the start already
                pass
        if self._model.look(self._shown.model):
            self._view.show_model()
            self._view.recount()

    async def _choose_installed(self) -> bool:
        installed = [each.id for each in self._model.installed()]
        if installed:
            try:
                latest = {each.model for each in self._chats.recent(1)}
            except StoreError:  # said already: whoever shows the list reads it too
                latest = set()
            await self.choose(next((each for each in installed if each in latest), installed[0]))
        return bool(installed)

    async def choose(self, name: str) -> None:
        """Make a model the one that answers next."""
        try:
            manifest = self._model.choose(name)
        except SquishError as error:
            await self._say(error)
            return
        after = self._defaults(manifest.id)
        with reporting_errors(self._screen.app):
            settings, current = self._shown.settings, self._shown.model
            if self._shown.id is None and manifest.id != current:
                settings = defaults.followed(settings, self._defaults(current), after)
            self._shown.configure(model=manifest.id, settings=settings)
        self.show_parameters(after)
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
        elif not event.error and event.model == self._shown.model:
            self._look_at_format()
        self._view.recount()

    # ---- parameters

    def _defaults(self, model: str) -> Defaults:
        """How a new chat with a model asks; the program's defaults where what is set for it cannot be used."""
        with reporting_errors(self._screen.app):
            return defaults.of_model(self._settings, model, lambda: all_of(self._chats))
        return Defaults()

    def _preferred(self) -> tuple[str, ...]:
        """Which preset the shown chat's parameters are, where several are alike."""
        return self._shown.preset, self._defaults(self._shown.model).preset

    def settings_for(self, models: Sequence[str]) -> dict[str, ChatSettings]:
        """How each model would be asked in the shown chat: as is set there, and else as is set for that model."""
        settings, current = self._shown.settings, self._shown.model
        others = [each for each in models if each != current]
        before = self._defaults(current) if others else Defaults()
        followed = {each: defaults.followed(settings, before, self._defaults(each)) for each in others}
        return {each: followed.get(each, settings) for each in models}

    def begin(self) -> None:
        """Let a new chat ask as is set for its model; where nothing is, it asks as the chat before it."""
        found = self._defaults(self._shown.model)
        if found.sources:
            self._shown.settings, self._shown.preset = found.settings, found.preset
        self.show_parameters(found)

    def show_parameters(self, known: Defaults | None = None) -> None:
        """known: the defaults of the shown chat's model, where they have been found already."""
        with reporting_errors(self._screen.app):
            known = known or self._defaults(self._shown.model)
            self._panel.show(self._shown.settings, all_of(self._chats), known, self._shown.preset)

    async def keep_for_model(self, line: str = "") -> None:
        """Let new chats with the shown chat's model ask like this one from now on; `rm` takes it back."""
        app, model = self._screen.app, self._shown.model
        if not model:
            app.notify("No model is chosen yet.", markup=False)
            return
        with reporting_errors(app):
            if line == "rm":
                there = defaults.forget(self._settings, model)
                said = f"{model} has no saved defaults any more." if there else f"{model} has no saved defaults."
            else:
                settings, preferred = project_files.without(self._shown.settings), self._preferred()
                defaults.keep(self._settings, model, settings, all_of(self._chats), preferred)
                said = f"Saved as the defaults of {model} for new chats; /defaults rm removes them."
            if first := defaults.fixed(self._settings, model):
                said += f" config.toml takes precedence: it sets {', '.join(first)}."
            self.show_parameters()
            await self._view.dialogue.notice(Content(clean(said)))

    def set(self, settings: ChatSettings, preset: str = "") -> None:
        """preset: the one that they are, where it was chosen."""
        before = self._shown.settings.response_format
        with reporting_errors(self._screen.app):
            self._shown.configure(settings=settings, preset=preset)
        if settings.response_format != before:
            self._look_at_format(_TYPING)
        self._view.recount()

    def _look_at_format(self, pause: float = 0.0) -> None:
        """Say now, and not when a question is asked, that no answer can be held to the format of the shown chat."""
        if self._shown.settings.response_format and self._shown.model:
            look: Any = partial(self._require_holdable, self._shown.model, self._shown.settings, pause)
            self._screen.run_worker(look, group="format", exclusive=True, exit_on_error=False)

    async def _require_holdable(self, model: str, settings: ChatSettings, pause: float) -> None:
        await asyncio.sleep(pause)
        with reporting_errors(self._screen.app):
            if wanted := settings.sampling().response_format:
                try:
                    await self._sessions.require_holdable(model, wanted)
                except InvalidInput as error:
                    hint = f"{error.hint or ''} /set format with another one, or alone to reset it.".strip()
                    raise InvalidInput(f"{wanted.field}: {error.message}", hint=hint) from None

    async def set_parameter(self, text: str) -> None:
        """Do what `/set` was given."""
        from squish.tui.chat.parameter_commands import require_settable, set_parameter

        with reporting_errors(self._screen.app):
            require_settable(text, self._fixed)
            await self._change(set_parameter, text, "parameters")

    async def set_system_prompt(self, text: str) -> None:
        """Do what `/system` was given."""
        from squish.tui.chat.parameter_commands import set_system_prompt

        await self._change(set_system_prompt, text)

    async def _change(self, command: Command, text: str, kind: str = "plain") -> None:
        """Say what came of it. kind: of the notice that does."""
        with reporting_errors(self._screen.app):
            before = self._shown.settings.response_format
            outcome = command(self._shown.settings, self._chats, text)
            self._shown.configure(settings=outcome.settings, preset=outcome.preset)
            if outcome.settings.response_format != before:
                self._look_at_format()
            self.show_parameters()
            self._view.recount()
            heading = f"{outcome.heading}  " if outcome.heading else ""
            await self._view.dialogue.notice(Content.assemble((heading, "bold"), clean(outcome.text)), kind)

    async def pick_preset(self, take: Callable[[str], Awaitable[None]] | None = None) -> None:
        """Let the user choose among all presets. take: what is done with its name; else the panel takes it."""
        with reporting_errors(self._screen.app):
            presets = all_of(self._chats)
            known = {name: parameters.changed(each) or "all defaults" for name, each in presets.items()}
            current = preset_of(self._shown.settings, presets, self._preferred())

            async def picked(name: str) -> None:
                await (take(name) if take else self._panel.take_preset(name, presets[name]))

            await chat_windows.pick_preset(self._screen.app, known, current, picked)

    async def use_preset(self, text: str) -> None:
        """Do what `/preset` was given, alone let the user choose; values that its variables need are asked for."""
        from squish.tui.chat.parameter_commands import template_of

        app = self._screen.app
        if not text:
            await self.pick_preset(self.use_preset)
            return
        with reporting_errors(app):
            template, wanted = template_of(self._chats, text)
            if wanted:

                async def filled(values: dict[str, str]) -> None:
                    given = " ".join(shlex.quote(f"{name}={value}") for name, value in values.items())
                    await self._use(f"{text} {given}", template)

                await chat_windows.fill_in(app, f"Preset {text}", wanted, template, filled)
            else:
                await self._use(text, template)

    async def _use(self, line: str, template: str) -> None:
        from squish.tui.chat.parameter_commands import use_preset
        from squish.tui.screens.template_commands import around

        known = await around(self._screen.app, self._shown.model, template)
        await self._change(partial(use_preset, around=known), line)

    # ---- what the project says

    def project_offer(self) -> str:
        """What the working directory has for this chat, and its size; empty where there is nothing."""
        files = project_files.found(working_directory())
        return project_files.about(files) if files else ""

    async def toggle_project(self) -> None:
        """Let the project's files go along with this chat, or no longer."""
        files, settings = project_files.found(working_directory()), self._shown.settings
        if project_files.included(settings):
            settings, said = project_files.without(settings), "The project files are no longer in the system prompt."
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
