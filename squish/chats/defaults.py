"""The parameters of a new chat with a model: the program's defaults, what was set on the screen for the model, and what
config.toml sets for it, each taking precedence over the one before. It knows no front door.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any

import msgspec

from squish.chats.messages import ChatSettings
from squish.chats.presets import preset_of, with_preset
from squish.config import model_defaults
from squish.config.model_defaults import PRESET, ModelDefaults
from squish.config.settings import Settings
from squish.errors import ConfigError, InvalidInput
from squish.system.working_directory import working_directory

Presets = Callable[[], Mapping[str, ChatSettings]]
"""Gives all presets by name. Reading them opens the database, which only a default that names one is worth."""

SCREEN = "set on the screen for this model"
FILE = "config.toml"


class Defaults(msgspec.Struct, frozen=True):
    """settings: how a new chat asks. sources: where each parameter comes from that is not the program's default.

    preset: the one that they name.
    """

    settings: ChatSettings = msgspec.field(default_factory=ChatSettings)
    sources: Mapping[str, str] = msgspec.field(default_factory=dict)
    preset: str = ""


def of_model(settings: Settings, model: str, presets: Presets, base: ChatSettings | None = None) -> Defaults:
    """The defaults of a model by its id. base: what stands where nothing is set for it.

    Raises ConfigError for a preset that does not exist or cannot be used without asking, and for a format that is
    none.
    """
    found, sources, named = base or ChatSettings(), dict[str, str](), ""
    for layer in _layers(settings, model):
        values = dict(layer.values)
        if (name := values.pop(PRESET, None)) is not None:
            named, preset = name, _preset(name, model, layer, presets())
            found = with_preset(found, preset)
            found = msgspec.structs.replace(found, max_tokens=_limit(found, base))
            sources = dict.fromkeys(_set_in(preset), f"preset {name}, {layer.source}")
        found = msgspec.structs.replace(found, **values)
        sources |= dict.fromkeys(values, layer.source)
    try:
        found.sampling()
    except InvalidInput as error:
        place = sources.get((error.param or "").partition(".")[0], FILE)
        raise ConfigError(f"{place}, {model}: {error.message}", hint=error.hint, param=error.param) from None
    return Defaults(found, sources, named)


def keep(
    settings: Settings,
    model: str,
    wanted: ChatSettings,
    presets: Mapping[str, ChatSettings],
    preferred: Iterable[str] = (),
) -> None:
    """Let new chats with a model ask like this from now on, by a preset's name where it is one. Raises StoreError.

    preferred: which preset it is where several are alike.
    """
    name = preset_of(wanted, presets, preferred)
    base = presets.get(name, ChatSettings())
    values = {each: getattr(wanted, each) for each in _fields() if getattr(wanted, each) != getattr(base, each)}
    values = {each: value for each, value in values.items() if value is not None}  # TOML has no nothing
    if name and base != ChatSettings():
        values[PRESET] = name
    model_defaults.remember(settings.home, model, values)


def forget(settings: Settings, model: str) -> bool:
    """Take that back; whether there was something. Raises StoreError."""
    there = model in model_defaults.remembered(settings.home)
    if there:
        model_defaults.remember(settings.home, model, {})
    return there


def fixed(settings: Settings, model: str) -> tuple[str, ...]:
    """What config.toml sets for a model, which nothing on the screen changes for new chats."""
    named = dict(settings.models).get(model)
    return tuple(named.values) if named else ()


def followed(settings: ChatSettings, before: Defaults, after: Defaults) -> ChatSettings:
    """The settings of a chat that goes from one model to another before its first message: what the user has changed
    stays, the rest is as for the other model."""
    kept = {each: value for each in _fields() if (value := getattr(settings, each)) != getattr(before.settings, each)}
    return msgspec.structs.replace(after.settings, **kept)


def _layers(settings: Settings, model: str) -> list[ModelDefaults]:
    found: list[ModelDefaults] = []
    if shown := model_defaults.remembered(settings.home).get(model):
        found.append(ModelDefaults(shown.values, SCREEN))
    if named := dict(settings.models).get(model):
        found.append(ModelDefaults(named.values, FILE))
    return found


def _preset(name: str, model: str, layer: ModelDefaults, presets: Mapping[str, ChatSettings]) -> ChatSettings:
    """Filled with what needs no question."""
    from squish.chats import templates

    if name not in presets:
        hint = f"Available: {', '.join(presets)}."
        raise ConfigError(f"{layer.source}, {model}: no preset is named {name}.", hint=hint, param=PRESET)
    try:
        return templates.filled(presets[name], {}, templates.Around(working_directory(), date.today(), model))
    except InvalidInput as error:
        hint = "The preset of a model may only have variables with a default."
        raise ConfigError(f"{layer.source}, {model}, preset {name}: {error.message}", hint=hint, param=PRESET) from None


def _limit(found: ChatSettings, base: ChatSettings | None) -> int:
    """A preset that leaves max_tokens at its default changes no limit."""
    return base.max_tokens if base and found.max_tokens == ChatSettings().max_tokens else found.max_tokens


def _set_in(preset: ChatSettings) -> list[str]:
    return [each for each in _fields() if getattr(preset, each) != getattr(ChatSettings(), each)]


def _fields() -> tuple[str, ...]:
    return ChatSettings.__struct_fields__


def described(defaults: Defaults) -> str:
    """`temperature 0.2 (config.toml), seed 7 (set on the screen for this model)`; empty where nothing is set."""
    return ", ".join(f"{name} {_short(getattr(defaults.settings, name))} ({place})"
                     for name, place in defaults.sources.items())  # fmt: skip


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:39]}…"
