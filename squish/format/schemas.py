"""JSON schemas, grammars and JSON texts of clients, checked for what would only come to light in the model's process.

Pure. It knows nesting and references; whether a schema can be held to is for the engine to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate
from typing import Any
from urllib.parse import unquote

import msgspec

from squish.errors import InvalidInput
from squish.generation import ResponseFormat
from squish.text import whole

MAX_DEPTH = 100
"""Lists and objects inside each other. The engine's own reader of schemas gives up at 128."""

MAX_LEVELS = 1500
"""Lists and objects on the way down all references, as if they led to each other; rules of a grammar, likewise. The
engine's compiler goes that way, and after some 2500 its stack overflows, which ends the process of the model."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_REST = bytes(set(range(256)) - set(_STEPS))
_SLICE = 65_536  # brackets counted at a stretch, in which no other thread runs
_DATA = ("enum", "const", "default", "examples")
"""Keys of a schema under which stand values and no schemas."""
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keys of a schema under which stand schemas by their names."""


def json_text(value: dict[str, Any], at: str) -> str:
    """An object as JSON text. Raises InvalidInput, naming the field, for one nested too deep."""
    try:
        text = msgspec.json.encode(value)
    except RecursionError:
        raise _too_deep(at) from None
    check_depth(text, at)
    return text.decode()


def tidy(schema: dict[str, Any], at: str) -> dict[str, Any]:
    """A schema without what clients write for a keyword that is not there: null, and [] for an object without members.

    Raises InvalidInput, naming the field, for one nested too deep.
    """
    json_text(schema, at)
    return {key: _tidied(key, value) for key, value in schema.items() if not _absent(key, value)}


def _tidied(key: str, value: Any) -> Any:
    if key in _DATA:
        return value
    if key in _MAPS and value == []:
        return {}
    if key in _MAPS and isinstance(value, dict):
        return {name: _tidied("", each) for name, each in value.items()}
    if isinstance(value, list):
        return [_tidied("", each) for each in value]
    if isinstance(value, dict):
        return {name: _tidied(name, each) for name, each in value.items() if not _absent(name, each)}
    return value


def _absent(key: str, value: Any) -> bool:
    return value is None and key not in ("const", "default")


def answer_format(schema: dict[str, Any], at: str, lenient: bool) -> ResponseFormat:
    """What holds an answer to a schema. Raises InvalidInput naming the field."""
    return ResponseFormat("json_schema", schema_text(tidy(schema, at), at), at, lenient)


def schema_text(schema: dict[str, Any], at: str) -> str:
    """A schema as JSON text. Raises InvalidInput, naming the field, for one too deep or with a reference to itself."""
    text = json_text(schema, at)
    targets = {ref: _target(ref, schema) for ref, _ in _references(schema)}
    levels = {id(target): max((level for _, level in _references(target)), default=0) for target in targets.values()}
    if sum(levels.values()) > MAX_LEVELS:
        message = f"{at} has references that lead more than {MAX_LEVELS} levels deep."
        raise InvalidInput(message, hint="Use fewer $refs, or flatter ones.", param=at)
    try:
        TopologicalSorter({ref: _leads_to(target) for ref, target in targets.items()}).prepare()
    except CycleError as error:
        way = " → ".join(reversed(error.args[1]))
        message = f"{at} has a $ref that leads back to itself and never to a value: {way}"
        raise InvalidInput(message[:400], hint="Replace it with what it stands for.", param=at) from None
    return text


def check_grammar(text: str, at: str) -> None:
    """Raise InvalidInput, naming the field, for a Lark grammar whose rules could lead too deep."""
    if sum(map(text.count, ":{[")) > MAX_LEVELS:  # a rule has a colon, and a schema in a grammar has brackets
        raise InvalidInput(f"{at} has more than {MAX_LEVELS} rules and brackets.", hint="Make it smaller.", param=at)


def check_depth(text: bytes, at: str) -> None:
    """Raise InvalidInput, naming the field, for a JSON text nested more than MAX_DEPTH deep, complete or not."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return
    brackets = _STRING.sub(b"", text).translate(None, _REST)
    depth = 0
    for start in range(0, len(brackets), _SLICE):
        depths = list(accumulate(map(_STEPS.__getitem__, brackets[start : start + _SLICE]), initial=depth))
        if max(depths) > MAX_DEPTH:
            raise _too_deep(at)
        depth = depths[-1]


def _too_deep(at: str) -> InvalidInput:
    return InvalidInput(f"{at} is nested more than {MAX_DEPTH} deep.", hint="Make it flatter.", param=at)


def _references(schema: object, level: int = 1) -> Iterator[tuple[str, int]]:
    """Every reference to a place in the schema, and in how many lists and objects it stands."""
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each, level + 1)
    if not isinstance(schema, dict):
        return
    for reference in _own_reference(schema):
        yield reference, level
    for key, value in schema.items():
        if key not in _DATA:
            yield from _references(value, level + 1)


def _own_reference(schema: dict[str, Any]) -> Iterator[str]:
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        yield reference


def _target(reference: str, schema: object) -> object:
    """What a reference like #/$defs/a points at; None for what is not there."""
    found = schema
    for part in reference[1:].split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(key)
        elif isinstance(found, list) and (place := whole(key)) is not None and place < len(found):
            found = found[place]
        else:
            return None
    return found


def _leads_to(schema: object) -> set[str]:
    """The references that have to be followed before a single character of a value is known."""
    if not isinstance(schema, dict):
        return set()
    found = set(_own_reference(schema))
    for key in ("allOf", "anyOf", "oneOf"):
        members = schema.get(key)
        if isinstance(members, list) and (key == "allOf" or len(members) == 1):
            for each in members:
                found |= _leads_to(each)
    return found
