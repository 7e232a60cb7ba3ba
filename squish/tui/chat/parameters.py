"""The parameters of a chat as people read and write them: one text each. Knows no widget."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from squish.chats.answer_format import checked
from squish.chats.messages import ChatSettings
from squish.errors import InvalidInput

_ON = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


class Parameter(msgspec.Struct, frozen=True):
    """name: the field of ChatSettings; about: one line; read: from a text, raising ValueError; default: as shown."""

    name: str
    label: str
    about: str
    default: str
    read: Callable[[str], Any]


def _stops(text: str) -> tuple[str, ...]:
    return tuple(each.replace("\\n", "\n") for each in text.split("|") if each)


def _switch(text: str) -> bool:
    if text.lower() not in _ON:
        raise ValueError
    return _ON[text.lower()]


PARAMETERS: tuple[Parameter, ...] = (
    Parameter("temperature", "temp", "0 to 2; 0 is greedy", "0.7", float),
    Parameter("top_p", "top_p", "0 to 1; 1 is off, 0 is greedy", "0.9", float),
    Parameter("top_k", "top_k", "0 (off) or more", "0", int),
    Parameter("min_p", "min_p", "0 (off) to 1", "0.0", float),
    Parameter("repetition_penalty", "repeat", "above 0, up to 10; 1 is off", "1.0", float),
    Parameter("presence_penalty", "pres", "-2 to 2; 0 is off", "0.0", float),
    Parameter("frequency_penalty", "freq", "-2 to 2; 0 is off", "0.0", float),
    Parameter("max_tokens", "max", "tokens of an answer", "2048", int),
    Parameter("context", "ctx", "tokens at most, answer included; empty: all", "model's", int),
    Parameter("kv_bits", "kv", "32, 16 or 8; a change reloads the model", "as loaded", int),
    Parameter("seed", "seed", "a whole number; empty picks one at random", "random", int),
    Parameter("stop", "stop", "up to 64 texts, | between", "none", _stops),
    Parameter("thinking", "think", "on or off; empty leaves it to the model", "model default", _switch),
    Parameter("response_format", "format", "text, json, a JSON schema or regex:…", "text", checked),
    Parameter("system", "system", "system prompt", "none", str),
)


def parameter(name: str) -> Parameter:
    """Raises InvalidInput for a name that is none."""
    for each in PARAMETERS:
        if name in (each.name, each.label):
            return each
    names = [each.name for each in PARAMETERS]
    near = difflib.get_close_matches(name.lower().replace("-", "_"), names, 1, 0.6)
    hint = f"Did you mean {near[0]}?" if near else f"Available: {', '.join(names)}."
    raise InvalidInput(f"{name} is not a parameter.", hint=hint, param=name)


def written(settings: ChatSettings, name: str) -> str:
    """A parameter's value as a text; empty at its default."""
    value = getattr(settings, name)
    if value == getattr(ChatSettings(), name):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "|".join(each.replace("\n", "\\n") for each in value)
    return str(value)


def changed(settings: ChatSettings) -> str:
    """What is not at the program's default, on one line; empty where nothing is."""
    values = {each.name: written(settings, each.name) for each in PARAMETERS}
    return " · ".join(f"{name} {value}" for name, value in values.items() if value)


def with_value(settings: ChatSettings, name: str, text: str) -> ChatSettings:
    """The settings with one value from a text; an empty one resets it. Raises InvalidInput."""
    this = parameter(name)
    try:
        value = this.read(text.strip()) if text.strip() else getattr(ChatSettings(), this.name)
    except ValueError:
        raise InvalidInput(f"{this.name}: {this.about}.", param=this.name) from None
    replaced = msgspec.structs.replace(settings, **{this.name: value})
    replaced.sampling()
    return replaced


def usable(settings: ChatSettings, fixed: Mapping[str, str]) -> ChatSettings:
    """The settings without those that nobody takes here. fixed: their names, and why."""
    plain = ChatSettings()
    return msgspec.structs.replace(settings, **{name: getattr(plain, name) for name in fixed})


def left_out(settings: ChatSettings, fixed: Mapping[str, str]) -> list[str]:
    """What an answer is asked without: `kv_bits 8 is left out: set on the server. /set kv_bits resets it.`"""
    values = {name: written(settings, name) for name in fixed}
    return [
        f"{name} {value} is left out: {fixed[name]}. /set {name} resets it." for name, value in values.items() if value
    ]
