"""Functions that a model may call, whatever a dialect calls their fields. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from squish.errors import InvalidInput
from squish.format import schemas
from squish.generation import Tool

MAX_TOOLS = 128

LONGEST_NAME = 64

_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Function(Protocol):
    """strict: false leaves out what of the schema cannot be held."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str | None: ...
    @property
    def parameters(self) -> dict[str, Any] | None: ...
    @property
    def strict(self) -> bool | None: ...


def offered(
    functions: Mapping[str, Function],
    schema_name: str = "parameters",
    *,
    most: int = MAX_TOOLS,
    longest_name: int = LONGEST_NAME,
) -> tuple[Tool, ...]:
    """The tools of a request. functions: by their places in the body. schema_name: the field of a function that has the
    schema of its arguments. Raises InvalidInput naming the field."""
    if len(functions) > most:
        raise InvalidInput(f"tools can hold {most}, not {len(functions)}.", param="tools")
    found: dict[str, Tool] = {}
    for at, function in functions.items():
        name, field = function.name, f"{at}.{schema_name}"
        check_name(name, f"{at}.name", longest_name)
        if name in found:
            raise InvalidInput(f"{at}.name {name!r} appears twice.", param=f"{at}.name")
        schema = parameters(function.parameters, field)
        found[name] = Tool(name, function.description or "", schema, function.strict is False, field)
    return tuple(found.values())


def check_name(name: str, at: str, longest: int = LONGEST_NAME) -> None:
    """Raise InvalidInput for what cannot be the name of a function or a schema."""
    if not _NAME.fullmatch(name) or len(name) > longest:
        raise InvalidInput(f"{at} must be 1 to {longest} letters, digits, underscores and dashes.", param=at)


def arguments(given: str | dict[str, Any] | None, at: str) -> str:
    """A JSON object as text; no text is an object without members. Raises InvalidInput naming the field."""
    if isinstance(given, dict):
        return schemas.json_text(given, at)
    if given is None or not given.strip():
        return "{}"
    schemas.check_depth(given.encode(), at)
    try:
        msgspec.json.decode(given, type=dict[str, Any])
    except msgspec.MsgspecError:
        hint = 'Send what the model wrote, or "{}" when it was cut off.'
        raise InvalidInput(f"{at} must be a JSON object as text.", hint=hint, param=at) from None
    return given


def parameters(given: dict[str, Any] | None, at: str) -> str:
    """The schema of a function's arguments, which are an object. Raises InvalidInput for one of anything else."""
    schema = schemas.tidy(given or {}, at)
    kind = schema.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        hint = 'Arguments have names: {"type": "object", "properties": {…}}.'
        raise InvalidInput(f'{at}.type must be "object".', hint=hint, param=f"{at}.type")
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        raise InvalidInput(f"{at}.properties must be an object.", param=f"{at}.properties")
    for name, value in properties.items():
        if not isinstance(value, dict | bool):
            field = f"{at}.properties.{name}"
            raise InvalidInput(f"{field} must be a schema, an object.", param=field)
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise InvalidInput(f"{at}.required must be a list of names.", param=f"{at}.required")
    return schemas.schema_text({"type": "object", **schema, "properties": properties} | {"type": "object"}, at)
