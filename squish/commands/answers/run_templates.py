"""`squish run --preset … --template … --var name=value`: what is asked, with every variable filled."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from squish.chats import presets, prompts, templates
from squish.chats.messages import ChatSettings
from squish.errors import InvalidInput
from squish.system import clipboard
from squish.system.working_directory import working_directory


class Filling:
    """A preset and a prompt template by their names, either of which may be None, and the values for both.

    model: as `{{model}}` says it. Raises InvalidInput for names that do not exist, and for values that are missing or
    meant for nothing.
    """

    def __init__(self, home: Path, model: str, preset: str | None, template: str | None, values: Sequence[str]) -> None:
        self._preset = presets.named(home, preset) if preset is not None else None
        self._template = prompts.named(home, template) if template is not None else None
        self._values = templates.given(values, "--var")
        if self._preset is None and self._template is None and values:
            raise InvalidInput("--var needs --preset NAME or --template NAME.", param="--var")
        texts = [self._preset.system if self._preset else "", self._template or ""]
        templates.check_values(texts, self._values)
        pasted = asyncio.run(clipboard.read(os.environ)) if any(_pastes(each) for each in texts) else None
        self._around = templates.Around(working_directory(), date.today(), model, clipboard=pasted)

    def preset(self) -> ChatSettings | None:
        """The preset with its variables replaced."""
        if self._preset is None:
            return None
        own = {each.name for each in templates.variables(self._preset.system)}
        values = {name: value for name, value in self._values.items() if name in own}
        return templates.filled(self._preset, values, self._around)

    def prompt(self, text: str | None) -> str | None:
        """What is asked: the template around the text, or with the text behind it where it does not say where."""
        if self._template is None:
            return text
        if templates.uses(self._template, templates.INPUT) and text is None:
            raise InvalidInput(
                "The template needs an input.", hint="Give --prompt some text, or pipe some in.", param="--prompt"
            )
        return prompts.message(self._template, self._values, replace(self._around, input=text))


def _pastes(text: str) -> bool:
    return templates.uses(text, templates.CLIPBOARD)
