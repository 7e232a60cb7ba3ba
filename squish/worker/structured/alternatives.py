"""Alternatives of a JSON schema: whether a value can be of two of them at once. Pure.

Only what can be proved counts; "no" may mean that nobody knows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any
from urllib.parse import unquote

ANNOTATIONS = frozenset(
    {
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "format",
        "$comment",
        "readOnly",
        "writeOnly",
        "$schema",
    }
)
_PLAIN = ANNOTATIONS | {
    "type", "properties", "required", "allOf", "unevaluatedProperties", "$defs", "definitions", "$id",
}  # fmt: skip
_TYPES = frozenset({"null", "boolean", "integer", "fraction", "string", "array", "object"})
_MOST = 64  # alternatives that are compared, each with each
_DEEPEST = 8
_COMPARISONS = 20_000  # of one schema
_LONGEST = 1000  # characters of values that are written down in every order

Schema = Any


class Alternatives:
    """Compares the alternatives of one schema, as long as that is reasonable; then nothing is certain any more.

    root: what its references lead into.
    """

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = _COMPARISONS

    def exclusive(self, branches: Sequence[Schema]) -> bool:
        """Whether no value can be of two of these."""
        return len(branches) <= _MOST and all(self._disjoint(a, b, 0) for a, b in combinations(branches, 2))

    def with_tag(self, branches: Sequence[Schema]) -> list[dict[str, Any]] | None:
        """The same objects with the property required that tells them apart, where it may be left out; None if none
        does.

        Without it a value could be of two of them, so that to require it takes away only what is not allowed.
        """
        shapes = [resolved(branch, self._root) for branch in branches]
        if not 0 < len(shapes) <= _MOST or not all(
            isinstance(shape, dict) and _kinds(shape) == {"object"} for shape in shapes
        ):
            return None
        for tag in properties(shapes[0]):
            schemas = [properties(shape).get(tag) for shape in shapes]
            if all(each is not None for each in schemas) and self.exclusive(schemas):
                return [{**shape, "required": [*dict.fromkeys([*_required(shape), tag])]} for shape in shapes]
        return None

    def _disjoint(self, a: Schema, b: Schema, depth: int) -> bool:
        self._left -= 1
        a, b = resolved(a, self._root), resolved(b, self._root)
        if a is False or b is False:
            return True
        if not isinstance(a, dict) or not isinstance(b, dict) or depth > _DEEPEST or self._left < 0:
            return False
        for one, other in ((a, b), (b, a)):
            for key in ("anyOf", "oneOf"):
                members = one.get(key)
                if not isinstance(members, list) or len(members) > _MOST:
                    continue
                if all(self._disjoint(each, other, depth + 1) for each in members):
                    return True
        listed, others = values(a), values(b)
        if listed is not None and others is not None:
            return not {_identity(value) for value in listed} & {_identity(value) for value in others}
        kinds = _kinds(a) & _kinds(b)
        return not kinds or (kinds == {"object"} and self._distinguishable(a, b, depth))

    def _distinguishable(self, a: dict[str, Any], b: dict[str, Any], depth: int) -> bool:
        """Whether a property that one of them requires cannot be of both, or must not be in the other."""
        mine, theirs = properties(a), properties(b)
        return (
            any(
                name in mine and name in theirs and self._disjoint(mine[name], theirs[name], depth + 1)
                for name in {*_required(a), *_required(b)}
            )
            or _forbids(a, _required(b))
            or _forbids(b, _required(a))
        )


def resolved(schema: Schema, root: Schema) -> Schema:
    """What a schema that is nothing but a reference leads to; other keys beside the reference leave it as it is."""
    for _ in range(_DEEPEST):
        if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
            break
        target = _target(schema["$ref"], root)
        if target is None or not schema.keys() - {"$ref"} <= ANNOTATIONS:
            break
        schema = target
    return schema


def values(schema: Schema) -> list[Any] | None:
    """All values of a schema that lists them."""
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return listed if isinstance(listed, list) else None


def distinct(schema: Schema) -> list[Any] | None:
    """All values, each once, of a schema that lists them and says nothing else but their type."""
    found = values(schema)
    if isinstance(schema, dict) and schema.get("type") == "boolean" and found is None:
        found = [False, True]
    if found is None or not schema.keys() <= ANNOTATIONS | {"type", "enum", "const"}:
        return None
    if sum(len(_identity(value)) for value in found) > _LONGEST:
        return None
    kinds = _kinds({"type": schema["type"]}) if "type" in schema else _TYPES
    return list({_identity(value): value for value in found if _kind(value) in kinds}.values())


def _forbids(schema: dict[str, Any], names: Sequence[str]) -> bool:
    """Whether one of these names cannot be in an object of this schema."""
    closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    return closed and any(name not in properties(schema) for name in names)


def names_of(schema: Schema, root: Schema, seen: set[int]) -> set[str] | None:
    """The properties that a schema and those it consists of know by name; None where they can know others.

    seen: the ids of schemas that were looked at already.
    """
    schema = resolved(schema, root)
    if id(schema) in seen:
        return set()
    seen.add(id(schema))
    if not isinstance(schema, dict) or not schema.keys() <= _PLAIN:
        return None
    found = set(properties(schema))
    parts = schema.get("allOf", [])
    for each in parts if isinstance(parts, list) else ():
        inner = names_of(each, root, seen)
        if inner is None:
            return None
        found |= inner
    return found


def _kinds(schema: dict[str, Any]) -> frozenset[str]:
    """The types that a value of this schema can have. A number is an integer or a fraction."""
    kinds = _TYPES
    if (listed := values(schema)) is not None:
        kinds = frozenset(_kind(value) for value in listed)
    declared = schema.get("type")
    if isinstance(declared, str):
        declared = [declared]
    if isinstance(declared, list):
        kinds &= {each for kind in declared for each in (("integer", "fraction") if kind == "number" else (kind,))}
    return kinds


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "fraction"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _identity(value: Any) -> str:
    """The same for equal values of JSON: 1 is 1.0 and is not true."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)


def properties(schema: dict[str, Any]) -> dict[str, Any]:
    """The schemas of its properties; none where there is something else in their place."""
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def _required(schema: dict[str, Any]) -> list[str]:
    found = schema.get("required")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _target(reference: str, root: Schema) -> Schema:
    found = root
    if not reference.startswith("#"):
        return None
    for part in reference[1:].split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(key)
        elif isinstance(found, list) and key.isascii() and key.isdecimal() and int(key[:9]) < len(found):
            found = found[int(key[:9])]
        else:
            return None
    return found
