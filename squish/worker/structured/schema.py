"""JSON schemas as clients have them, as schemas that the engine can hold an answer to.

What is written here allows what the client's schema allows, or less, never more: the reader of the answer validates it.
What cannot be held is refused with its place, or left out and noted when the client asked for that. `format` names that
the engine does not know are annotations, as the standard has it. It knows schemas, not grammars: whether one compiles
is for `Probe` to say.
"""

from __future__ import annotations

import json
import re
from itertools import permutations
from typing import Any

from squish.worker.structured import alternatives, patterns
from squish.worker.structured.alternatives import Alternatives
from squish.worker.structured.blame import LISTS_OF_SCHEMAS, MAPS_OF_SCHEMAS, ONE_SCHEMA, PROBES, Probe
from squish.worker.structured.properties import listed_names, name_pattern, with_required

FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
"""Formats that the engine holds a text to."""

_NEVER_HELD = (
    "if", "then", "else", "contains", "minContains", "maxContains", "dependencies",
    "dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef",
    "$recursiveRef",
)  # fmt: skip
_SUSPECT = re.compile(r"\(\?(?!:)|\\(?![dswDSW])[1-9A-Za-z]")
"""What the engine's expressions may not know."""
_FEW = 5  # kinds of items of which all lists are written down, 326 at the most
_BOUNDS = {"minimum": 1, "exclusiveMinimum": 1, "maximum": -1, "exclusiveMaximum": -1}
_FARTHEST = {"integer": 10**18 - 1, "number": 10**15}
"""The largest numbers that a narrowed range has; the engine's ranges end before 64 bits."""


class Unheld(ValueError):
    """A part of a schema that no answer can be held to. The message begins with its place."""


class Holdable:
    """Rewrites one schema. root: what its references lead into. lenient: leave out what cannot be held."""

    def __init__(self, root: dict[str, Any], probe: Probe, *, lenient: bool) -> None:
        self.notes: list[str] = []
        self._root = root
        self._alternatives = Alternatives(root)
        self._ask = probe
        self._answers: dict[str, str] = {}
        self._lenient = lenient
        self._made: dict[str, Any] = {}
        self._names_made: dict[str, str] = {}

    def rewritten(self) -> dict[str, Any]:
        """The schema that an answer is held to. Raises Unheld, naming the place."""
        found = self._schema(self._root, "")
        if not isinstance(found, dict):
            raise Unheld("nothing at all fits it.")
        found.pop("x-guidance", None)  # the engine's own options
        if self._made:
            found["$defs"] = found.get("$defs", {}) | self._made
        return found

    def _probe(self, schema: dict[str, Any]) -> str:
        same = json.dumps(schema)
        if same not in self._answers:
            if len(self._answers) >= PROBES:
                raise Unheld("it has too many patterns and ranges out of the ordinary.")
            self._answers[same] = self._ask(schema)
        return self._answers[same]

    def _schema(self, schema: Any, at: str) -> Any:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise Unheld(f"{at or 'it'} must be a schema, an object.")
        schema = with_required(schema)
        if not isinstance(schema.get("required", []), list):
            raise Unheld(f"{f'{at}.required'.lstrip('.')} must be a list of names.")
        inner = {key: self._member(key, value, f"{at}.{key}" if at else key) for key, value in schema.items()}
        if inner.get("not") in ({}, True):
            return False
        self._leave_out(inner, at)
        self._text(inner, at)
        self._numbers(inner, at)
        self._names(inner, at)
        self._counts(inner, at)
        if isinstance(inner.get("oneOf"), list) and "anyOf" not in inner:
            self._one_of(inner, schema["oneOf"], at)
        return inner

    def _member(self, key: str, value: Any, at: str) -> Any:
        if key in MAPS_OF_SCHEMAS and isinstance(value, dict):
            return {name: self._schema(each, f"{at}.{name}") for name, each in value.items()}
        if key in LISTS_OF_SCHEMAS and isinstance(value, list):
            return [self._schema(each, f"{at}[{i}]") for i, each in enumerate(value)]
        return self._schema(value, at) if key in ONE_SCHEMA else value

    def _drop(self, schema: dict[str, Any], key: str, at: str, why: str = "cannot be held to") -> None:
        """Leave out a key, or refuse the schema for it."""
        place = f"{at}.{key}" if at else key
        if not self._lenient:
            raise Unheld(f"{place} {why}.")
        del schema[key]
        self.notes.append(place)

    def _leave_out(self, schema: dict[str, Any], at: str) -> None:
        """What the engine does not know: without a note where it says nothing."""
        if str(schema.get("$schema")).startswith("https://spec.openapis.org/"):
            del schema["$schema"]
        if schema.get("not") is False:
            del schema["not"]
        if schema.get("uniqueItems") is False or schema.get("maxItems") in (0, 1):
            schema.pop("uniqueItems", None)
        if "then" not in schema and "else" not in schema:
            schema.pop("if", None)
        elif "if" not in schema:
            schema.pop("then", None)
            schema.pop("else", None)
        for key in ("unevaluatedItems", "unevaluatedProperties"):
            if schema.get(key) in (True, {}):
                del schema[key]
        self._unique(schema)
        self._close(schema)
        for key in (*_NEVER_HELD, "uniqueItems", "not"):
            if key in schema:
                self._drop(schema, key, at)

    def _close(self, schema: dict[str, Any]) -> None:
        """No other properties than those of all parts, said where all of them can be named."""
        if schema.get("unevaluatedProperties") is not False or "additionalProperties" in schema:
            return
        if (names := alternatives.names_of(schema, self._root, set())) is not None:
            del schema["unevaluatedProperties"]
            schema["properties"] = alternatives.properties(schema) | {
                name: True for name in sorted(names) if name not in alternatives.properties(schema)
            }
            schema["additionalProperties"] = False

    def _unique(self, schema: dict[str, Any]) -> None:
        """Items without repetition, where so few are possible that all lists of them can be written down."""
        items = alternatives.resolved(schema.get("items"), self._root)
        possible = alternatives.distinct(items)
        if schema.get("uniqueItems") is not True or possible is None or "prefixItems" in schema or "enum" in schema:
            return
        fewest, most = schema.get("minItems", 0), schema.get("maxItems", len(possible))
        if len(possible) <= _FEW and isinstance(fewest, int) and isinstance(most, int):
            del schema["uniqueItems"]
            sizes = range(max(fewest, 0), min(most, len(possible)) + 1)
            schema["enum"] = [list(each) for size in sizes for each in permutations(possible, size)]

    def _text(self, schema: dict[str, Any], at: str) -> None:
        if str(schema.get("format")) not in FORMATS:
            schema.pop("format", None)
        pattern = schema.get("pattern")
        if not isinstance(pattern, str):
            return
        if _SUSPECT.search(pattern) and (why := self._probe({"type": "string", "pattern": pattern})):
            self._without_look_ahead(schema, pattern, at, why)
        text: dict[str, Any] = {key: schema[key] for key in ("pattern", "format") if key in schema}
        if len(text) == 2 and self._probe({"type": "string", **text}):
            del schema["format"]  # nothing has both, as a time without a zone: the pattern is what is asserted

    def _without_look_ahead(self, schema: dict[str, Any], pattern: str, at: str, why: str) -> None:
        found = patterns.without_look_ahead(pattern) or []
        if not found or any(self._probe({"type": "string", "pattern": each}) for each in found):
            self._drop(schema, "pattern", at, f"cannot be held to: {why}")
            return
        schema["pattern"] = found[0]
        kind = {"type": "string"} if schema.get("type") == "string" else {}
        if rest := [{**kind, "pattern": each} for each in found[1:]]:
            schema["allOf"] = [*schema.get("allOf", []), *rest]

    def _numbers(self, schema: dict[str, Any], at: str) -> None:
        """Ranges beyond what the engine counts to are narrowed: nobody's numbers lie there."""
        kind = str(schema.get("type"))
        bounds = {key: schema[key] for key in (*_BOUNDS, "multipleOf") if key in schema}
        if kind not in _FARTHEST or not bounds:
            return
        end = _FARTHEST[kind]
        numbers = (value for value in bounds.values() if isinstance(value, int | float))
        if all(abs(value) <= end for value in numbers) or not self._probe({"type": kind, **bounds}):
            return
        for key, sign in _BOUNDS.items():
            value = bounds.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > end:
                bounds[key] = -sign * end if value * sign < 0 else value
        if why := self._probe({"type": kind, **bounds}):
            for key in [key for key in bounds if key in schema]:
                self._drop(schema, key, at, f"cannot be held to: {why}")
            return
        schema.update(bounds)

    def _names(self, schema: dict[str, Any], at: str) -> None:
        if "propertyNames" not in schema:
            return
        names = alternatives.resolved(schema["propertyNames"], self._root)
        kept = (
            {k: v for k, v in names.items() if k not in alternatives.ANNOTATIONS} if isinstance(names, dict) else names
        )
        rest = schema.get("additionalProperties", True)
        known = alternatives.properties(schema)
        if kept is True or (
            isinstance(kept, dict) and kept.get("type", "string") == "string" and kept.keys() <= {"type"}
        ):
            del schema["propertyNames"]
        elif (allowed := listed_names(kept)) is not None and "patternProperties" not in schema:
            del schema["propertyNames"]
            given = {name: each for name, each in known.items() if name in allowed}
            value = self._kept(rest) if isinstance(rest, dict) else rest  # once, however many names there are
            others = {name: value for name in allowed if isinstance(name, str) and name not in given}
            forbidden = {name: False for name in known if name not in allowed}
            schema["properties"] = given | others | forbidden
            schema["additionalProperties"] = False
        elif (pattern := name_pattern(kept)) and not known and "patternProperties" not in schema:
            del schema["propertyNames"]
            schema["patternProperties"] = {pattern: rest}
            schema["additionalProperties"] = False
            if self._probe({"type": "object", "patternProperties": {pattern: True}, "additionalProperties": False}):
                raise Unheld(f"{at}.propertyNames cannot be held to.".lstrip("."))
        else:
            self._drop(schema, "propertyNames", at)

    def _counts(self, schema: dict[str, Any], at: str) -> None:
        """How many properties there are can be held only where all, or all but one, of them are required."""
        limits = {key: schema[key] for key in ("minProperties", "maxProperties") if key in schema}
        if not limits or not isinstance(schema.get("properties", {}), dict):
            return
        shape: dict[str, Any] = {"type": "object", "properties": dict.fromkeys(schema.get("properties", {}), True)}
        shape["additionalProperties"] = schema.get("additionalProperties") is not False
        if "required" in schema:
            shape["required"] = schema["required"]
        if why := self._probe(shape | limits):
            for key in limits:
                self._drop(schema, key, at, f"cannot be held to: {why}")

    def _one_of(self, schema: dict[str, Any], original: list[Any], at: str) -> None:
        """Exactly one of several, where no value can be of two of them, is any of them. The alternatives are judged as
        they were: what is written under a narrowed one must not be of another."""
        if self._alternatives.exclusive(original):
            schema["anyOf"] = schema.pop("oneOf")
        elif (tagged := self._alternatives.with_tag(original)) is not None:
            del schema["oneOf"]
            schema["anyOf"] = [self._kept(each) for each in tagged]
        else:
            branches = schema["oneOf"]
            self._drop(schema, "oneOf", at, "cannot be held to: its alternatives overlap")
            schema["anyOf"] = branches

    def _kept(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A reference to a schema of our own; the engine follows references and not their siblings in a circle."""
        same = json.dumps(schema, sort_keys=True)
        name = self._names_made.get(same)
        if name is None:
            name = self._names_made[same] = f"squish-{len(self._names_made)}"
            self._made[name] = self._schema(schema, name)
        return {"$ref": f"#/$defs/{name}"}
