"""Tools of the Responses API, which functions of theirs have to be called, and what the functions are called. Pure.

The functions of a namespace are offered as NAMESPACE__NAME, because a model knows one name for a function.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import msgspec

from squish.api.fields import tools as fields
from squish.api.responses.requests import ChosenTool, OfferedFunction, OfferedTool
from squish.errors import InvalidInput
from squish.generation import Tool

_CHOICES = ("none", "auto", "required")


@dataclass(frozen=True, slots=True)
class Name:
    """A function's name as the client knows it."""

    name: str
    namespace: str | None = None

    @property
    def full(self) -> str:
        """The one name that the model knows; a long one is cut, and a checksum keeps it apart from others."""
        if self.namespace is None:
            return self.name
        whole = self.namespace + ("" if self.namespace.endswith("__") else "__") + self.name
        return (
            whole
            if len(whole) <= fields.LONGEST_NAME
            else f"{whole[: fields.LONGEST_NAME - 9]}_{crc32(whole.encode()):08x}"
        )


@dataclass(frozen=True, slots=True)
class Tools:
    """offered: to the model. functions: as the response repeats them. names: by those that the model knows.

    skipped: types of tools that are left out.
    """

    offered: tuple[Tool, ...] = ()
    functions: tuple[OfferedFunction, ...] = ()
    names: Mapping[str, Name] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def understood(given: Sequence[OfferedTool]) -> Tools:
    """Raises InvalidInput naming the field."""
    places: dict[str, OfferedFunction] = {}
    names: dict[str, Name] = {}
    skipped = [tool.type for tool in given if tool.type not in ("function", "namespace")]
    for at, tool, namespace in _functions(given):
        if tool.type != "function":
            skipped.append(tool.type)
            continue
        if tool.name is None:
            raise InvalidInput(f"{at}.name is missing.", param=f"{at}.name")
        fields.check_name(tool.name, f"{at}.name")
        name = Name(tool.name, namespace)
        names[name.full] = name
        places[at] = OfferedFunction(
            name=name.full, description=tool.description, parameters=tool.parameters, strict=bool(tool.strict)
        )
    return Tools(fields.offered(places), tuple(places.values()), names, tuple(dict.fromkeys(skipped)))


def _functions(given: Sequence[OfferedTool]) -> Iterator[tuple[str, OfferedTool, str | None]]:
    """Everything that may be a function, where it stands, and its namespace."""
    for i, tool in enumerate(given):
        at = f"tools[{i}]"
        if tool.type == "function":
            yield at, tool, None
        elif tool.type == "namespace":
            if tool.name is None:
                raise InvalidInput(f"{at}.name is missing.", param=f"{at}.name")
            fields.check_name(tool.name, f"{at}.name")
            for k, inner in enumerate(tool.tools or ()):
                yield f"{at}.tools[{k}]", _inner(inner, f"{at}.tools[{k}]"), tool.name


def _inner(given: object, at: str) -> OfferedTool:
    try:
        return msgspec.convert(given, OfferedTool)
    except msgspec.ValidationError:
        raise InvalidInput(f"{at} must be a tool, an object with a type.", param=at) from None


def choice(asked: str | ChosenTool | None, tools: Tools) -> tuple[str, tuple[Tool, ...]]:
    """What has to be called, in the engine's words, and the tools that may be. Raises InvalidInput naming the field."""
    if asked is None or isinstance(asked, str):
        return _word(asked or "auto", tools.offered, "tool_choice"), tools.offered
    if asked.type == "allowed_tools":
        allowed = {_named(tool.name, tools, f"tool_choice.tools[{i}]") for i, tool in enumerate(asked.tools or ())}
        left = tuple(tool for tool in tools.offered if tool.name in allowed)
        return _word(asked.mode or "auto", left, "tool_choice.mode"), left
    if asked.type != "function":
        message = f"tool_choice.type must be function or allowed_tools; {asked.type[:40]!r} is not supported."
        raise InvalidInput(message, param="tool_choice.type")
    return f"call:{_named(asked.name, tools, 'tool_choice')}", tools.offered


def _word(word: str, offered: Sequence[Tool], at: str) -> str:
    if word not in _CHOICES:
        raise InvalidInput(f"{at} must be {', '.join(_CHOICES)} or name a function.", param=at)
    if word == "required" and not offered:
        raise InvalidInput(f"{at} requires a function, but there are none.", param=at)
    return word


def _named(name: str | None, tools: Tools, at: str) -> str:
    for full, known in tools.names.items():
        if name in (full, known.name):
            return full
    shown = "nothing" if name is None else repr(name[:64])
    raise InvalidInput(f"{at} names {shown}, which is not one of the functions.", param=f"{at}.name")
