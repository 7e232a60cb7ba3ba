"""`/template`: prompt templates are saved, chosen and filled; what comes of one is the draft, to be read before it is
sent.

Errors are shown in a corner of the screen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date

from textual.app import App
from textual.screen import Screen

from squish.chats import prompts, templates
from squish.chats.chats import Chats
from squish.chats.templates import Around, Variable
from squish.errors import InvalidInput
from squish.system import clipboard
from squish.system.working_directory import working_directory
from squish.text import clean
from squish.tui import actions
from squish.tui.advice import reporting_errors
from squish.tui.chat.conversations import Conversations
from squish.tui.screens import chat_windows
from squish.tui.widgets.chat.chat_view import ChatView

_HOW = "No template yet. /template save NAME TEXT makes one; {{input}} and {{language|English}} can be used in it."


async def around(app: App[None], model: str, text: str, input: str | None = None) -> Around:
    """What a text is filled with. The clipboard is read where the text names it."""
    pasted = None
    if templates.uses(text, templates.CLIPBOARD):
        pasted = await clipboard.read(os.environ)
        pasted = app.clipboard or None if pasted is None else pasted  # what was copied here, where no program helps
    return Around(working_directory(), date.today(), model, input, pasted)


class TemplateCommands:
    """chats: what is saved; open_chats: those of this run, one of which is shown in the view."""

    def __init__(self, screen: Screen[None], chats: Chats, open_chats: Conversations, view: ChatView) -> None:
        self._screen, self._chats, self._open, self._view = screen, chats, open_chats, view

    async def run(self, line: str = "") -> None:
        """`NAME TEXT` uses a template with a text for its input; `save NAME TEXT` keeps one, `rm NAME` deletes one."""
        verb, _, rest = line.partition(" ")
        with reporting_errors(self._screen.app):
            if verb == "save":
                self._save(rest)
            elif verb == "rm":
                self._remove(rest.strip())
            elif line:
                name, *behind = line.split(None, 1)
                await self._use(name, behind[0] if behind else "")
            else:
                await self._choose()

    def _say(self, text: str) -> None:
        self._screen.app.notify(clean(text), markup=False)

    def _save(self, rest: str) -> None:
        name, *behind = rest.split(None, 1) or [""]
        name, turns = prompts.checked_name(name), self._open.shown.turns
        text = behind[0] if behind else turns[-1].question if turns else ""
        if not text.strip():
            raise InvalidInput("A template needs a text.", hint="/template save NAME TEXT", param="template")
        self._chats.keep_prompt(name, text)
        self._say(f"Template {name} saved. /template {name} uses it.")

    def _remove(self, name: str) -> None:
        known = name in self._chats.prompts()
        self._chats.remove_prompt(name)
        self._say(f"Template {name} deleted." if known else f"No template is named {name}.")

    async def _choose(self) -> None:
        known = self._chats.prompts()
        if not known:
            self._say(_HOW)
            return

        async def chosen(name: str) -> None:
            with reporting_errors(self._screen.app):
                await self._use(name, self._view.prompt.draft)

        await chat_windows.pick_template(self._screen.app, known, chosen)

    async def _use(self, name: str, text: str) -> None:
        """Fill a template. text: its input; where there is none, it is asked for like the variables."""
        known = self._chats.prompts()
        if name not in known:
            there = f"Available: {', '.join(known)}." if known else _HOW
            raise InvalidInput(f"No template is named {name}.", hint=there, param="template")
        template = known[name]
        wanted = list(templates.variables(template))
        if templates.uses(template, templates.INPUT) and not text.strip():
            wanted.append(Variable(templates.INPUT))

        async def filled(values: Mapping[str, str]) -> None:
            with reporting_errors(self._screen.app):
                await self._fill(template, values, values.get(templates.INPUT, text))

        if wanted:
            await chat_windows.fill_in(self._screen.app, f"Template {name}", wanted, template, filled)
        else:
            await filled({})

    async def _fill(self, template: str, values: Mapping[str, str], text: str) -> None:
        known = await around(self._screen.app, self._open.shown.model, template, text)
        written = prompts.message(template, values, known)
        written = f" {written}" if actions.parse_slash(written) else written  # it is a message, not a command
        self._view.prompt.put(written)
        self._screen.set_focus(self._view.prompt)
