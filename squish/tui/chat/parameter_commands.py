"""What `/set`, `/preset` and `/system` do: a line in, other settings and an answer out. Knows no widget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from squish.chats.chats import Chats
from squish.chats.messages import ChatSettings
from squish.chats.presets import PRESETS, with_preset
from squish.tui.chat import parameters


@dataclass(frozen=True, slots=True)
class Outcome:
    """settings: as they are now; heading and text: what the chat shows about it."""

    settings: ChatSettings
    text: str
    heading: str = ""


Command = Callable[[ChatSettings, Chats, str], Outcome]


def set_parameter(settings: ChatSettings, chats: Chats, line: str) -> Outcome:
    """`temperature 0.2`; without a value back to the default; alone what is changed. Raises InvalidInput."""
    name, _, value = line.partition(" ")
    if name:
        settings = parameters.with_value(settings, name, value)
    written = {each.name: parameters.written(settings, each.name) for each in parameters.PARAMETERS}
    changed = " · ".join(f"{key} {value}" for key, value in written.items() if value)
    return Outcome(settings, changed or "All parameters are at their defaults.")


def set_system_prompt(settings: ChatSettings, chats: Chats, line: str) -> Outcome:
    """Another system prompt; alone it takes it away."""
    changed = parameters.with_value(settings, "system", line)
    if line:
        return Outcome(changed, line, "System prompt")
    gone = f"System prompt removed: {settings.system}" if settings.system else "No system prompt is set."
    return Outcome(changed, gone)


def use_preset(settings: ChatSettings, chats: Chats, line: str) -> Outcome:
    """`NAME` uses it; `save NAME` keeps the settings under it; `rm NAME` forgets it. Raises StoreError."""
    verb, _, name = line.partition(" ")
    confirmation = ""
    if verb in ("save", "rm") and name:
        chats.keep_preset(name, settings) if verb == "save" else chats.remove_preset(name)
        confirmation = f"Preset {name} {'saved' if verb == 'save' else 'removed'}."
    presets = dict(PRESETS) | chats.presets()
    if line in presets:
        return Outcome(with_preset(settings, presets[line]), f"Preset {line} is used.")
    return Outcome(settings, confirmation or f"Presets: {', '.join(presets)}.")
