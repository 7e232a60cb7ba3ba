"""What `/set`, `/preset` and `/system` do: a line in, other settings and an answer out. Knows no widget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from squish.chats import templates
from squish.chats.chats import Chats
from squish.chats.messages import ChatSettings
from squish.chats.presets import all_of, unknown, with_preset
from squish.chats.templates import Around, Variable
from squish.errors import InvalidInput
from squish.tui.chat import parameters


@dataclass(frozen=True, slots=True)
class Outcome:
    """settings: as they are now; heading and text: what the chat shows about it; preset: the one that they are now."""

    settings: ChatSettings
    text: str
    heading: str = ""
    preset: str = ""


Command = Callable[[ChatSettings, Chats, str], Outcome]


def set_parameter(settings: ChatSettings, chats: Chats, line: str) -> Outcome:
    """`temperature 0.2`; without a value back to the default; alone what is changed. Raises InvalidInput."""
    name, _, value = line.partition(" ")
    if name:
        settings = parameters.with_value(settings, name, value)
    return Outcome(settings, parameters.changed(settings) or "All parameters are at their defaults.")


def require_settable(line: str, fixed: Mapping[str, str]) -> None:
    """Raise InvalidInput where `/set` is given a value for a parameter that has none here. fixed: those, and why."""
    name, _, value = line.partition(" ")
    if value.strip() and (why := fixed.get(parameters.parameter(name).name)):
        name = parameters.parameter(name).name
        raise InvalidInput(f"{name} cannot be set here: {why}.", hint=f"/set {name} resets it.", param=name)


def set_system_prompt(settings: ChatSettings, chats: Chats, line: str) -> Outcome:
    """Another system prompt; alone it takes it away."""
    changed = parameters.with_value(settings, "system", line)
    if line:
        return Outcome(changed, line, "System prompt")
    gone = f"System prompt removed: {settings.system}" if settings.system else "No system prompt is set."
    return Outcome(changed, gone)


def use_preset(settings: ChatSettings, chats: Chats, line: str, around: Around) -> Outcome:
    """`NAME` uses it, with `variable=value` behind it; `save NAME` keeps the settings under it; `rm NAME` forgets it.

    Raises StoreError, InvalidInput also for a name that no preset has.
    """
    verb, _, name = line.partition(" ")
    confirmation = ""
    if verb in ("save", "rm") and name:
        chats.keep_preset(name, settings) if verb == "save" else chats.remove_preset(name)
        confirmation = f"Preset {name} {'saved' if verb == 'save' else 'removed'}."
    presets = all_of(chats)
    line, values = templates.taken_apart(line, presets) if not confirmation else (line, {})
    if line in presets:
        preset = templates.filled(presets[line], values, around)
        return Outcome(with_preset(settings, preset), f"Preset {line} applied.", preset=line)
    if not confirmation:
        raise unknown(line, presets)
    return Outcome(settings, confirmation, preset=name if verb == "save" else "")


def template_of(chats: Chats, line: str) -> tuple[str, tuple[Variable, ...]]:
    """The text with variables that a line's preset has, and what it wants a value for that the line does not give.

    Raises StoreError, InvalidInput.
    """
    presets = all_of(chats)
    if line.startswith(("save ", "rm ")):
        return "", ()
    name, values = templates.taken_apart(line, presets)
    text = presets[name].system if name in presets else ""
    return text, tuple(each for each in templates.variables(text) if each.name not in values)
