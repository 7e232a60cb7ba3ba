"""Schemas that common libraries make: which are held, and that whatever is written under them is valid by them.

What is generated is judged by a validator that knows nothing of Squish, against the schema as the library made it.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest

from squish.errors import InvalidInput
from squish.generation import ResponseFormat
from squish.worker.structured import alternatives, patterns
from squish.worker.structured.grammar import Grammar, GrammarCompiler, GrammarState
from tests.worker.byte_models import VOCABULARY, tokenizer

CORPORA = Path(__file__).parents[2] / "data" / "schemas"
END = 256
FIELD = "response_format.json_schema.schema"

NOT_HELD = {
    "pydantic": {
        "set[int]": "uniqueItems cannot be held to",
        "frozenset[str]": "uniqueItems cannot be held to",
        "Tagged": "properties.tags.uniqueItems cannot be held to",
    },
    "zod": {"never": "nothing at all fits it"},
}
"""The schemas that are refused, and why: everything else has to be held."""

RARE = {("zod", "endsWith"): "a.txt", ("zod", "includes"): "xa.by", ("zod", "emoji"): "😀"}
"""What nobody writes by chance."""

COUNTS = {"pydantic": 80, "zod": 93}


def corpus(library: str) -> dict[str, Any]:
    schemas: dict[str, Any] = json.loads((CORPORA / f"{library}.json").read_text(encoding="utf-8"))["schemas"]
    return schemas


ALL = [(library, name) for library in NOT_HELD for name in corpus(library)]
HELD = [(library, name) for library, name in ALL if name not in NOT_HELD[library]]


@cache
def compiler() -> GrammarCompiler:
    return GrammarCompiler(tokenizer())


def compiled(schema: Any, *, lenient: bool = False) -> Grammar:
    return compiler().compile(ResponseFormat("json_schema", json.dumps(schema), FIELD, lenient))


def refusal(schema: Any) -> str:
    with pytest.raises(InvalidInput) as refused:
        compiled(schema)
    assert refused.value.param == FIELD
    return refused.value.message


def written(grammar: Grammar, seed: int) -> list[Any]:
    """A value that a random writer ends up with, who likes to come to an end; none when there is no end in sight."""
    choose = random.Random(seed)
    state, text = GrammarState(grammar, frozenset({END})), bytearray()
    while not state.finished:
        allowed = np.flatnonzero(state.allowed(VOCABULARY)[: END + 1])
        if END in allowed:
            break
        if len(text) > 1500:
            return []
        token = int(choose.choice(_preferred(allowed, choose, len(text))))
        state.take(token)
        text += _byte(token)
    return [json.loads(text, parse_float=_finite)]


def _finite(number: str) -> float:
    """The validator takes an infinity for null; JSON has numbers as large as anyone likes."""
    return max(-1e300, min(float(number), 1e300))


def accepts(grammar: Grammar, value: Any) -> bool:
    """Whether a value, written without spaces, can be the answer."""
    state = GrammarState(grammar, frozenset({END}))
    for byte in json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode():
        token = TOKENS[byte]
        if state.finished or not state.allowed(VOCABULARY)[token]:
            return False
        state.take(token)
    return state.finished or bool(state.allowed(VOCABULARY)[END])


@cache
def _byte(token: int) -> bytes:
    """The byte of a token: the alphabet of byte-level vocabularies, backwards."""
    return bytes([BYTES[LETTERS[token]]])


def _alphabet() -> dict[str, int]:
    """Byte-level vocabularies write each byte as one character: itself where it can be seen, else one above 255."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    found = {chr(byte): byte for byte in seen}
    others = (byte for byte in range(256) if byte not in seen)
    return found | {chr(256 + at): byte for at, byte in enumerate(others)}


BYTES = _alphabet()
LETTERS = tokenizer().convert_ids_to_tokens(list(range(256)))
TOKENS = {BYTES[letter]: token for token, letter in enumerate(LETTERS)}


def _preferred(allowed: np.ndarray, choose: random.Random, length: int) -> list[int]:
    """Mostly plain letters; the longer the text is, the sooner what ends a value."""
    ends = [int(token) for token in allowed if _byte(int(token)) in b'"}]']
    if ends and choose.random() < min(0.2 + length / 200, 0.5):
        return ends
    plain = [int(token) for token in allowed if _byte(int(token)).isalnum() or _byte(int(token)) in b'"{}[]:,-.@/']
    return plain or [int(token) for token in allowed]


def test_the_corpora_are_as_large_as_they_are_said_to_be() -> None:
    assert {library: len(corpus(library)) for library in NOT_HELD} == COUNTS
    for library, reasons in NOT_HELD.items():
        held = len(corpus(library)) - len(reasons)
        print(f"{library}: {held} of {COUNTS[library]} held; refused: {reasons}")


@pytest.mark.parametrize("seeds", [2, pytest.param(6, marks=pytest.mark.long)])
@pytest.mark.parametrize(("library", "name"), HELD)
def test_whatever_is_written_is_valid_by_the_schema_as_it_was(library: str, name: str, seeds: int) -> None:
    schema = corpus(library)[name]
    grammar = compiled(schema)
    assert grammar.notes == ()
    validator = jsonschema_rs.validator_for(schema)
    values = [value for seed in range(seeds) for value in written(grammar, seed)]
    assert values or (library, name) in RARE
    for value in [*values, *([RARE[library, name]] if not values else [])]:
        validator.validate(value)
        assert accepts(grammar, value)


@pytest.mark.parametrize(("library", "name"), [(library, name) for library in NOT_HELD for name in NOT_HELD[library]])
def test_what_is_not_held_is_refused_with_its_place(library: str, name: str) -> None:
    assert NOT_HELD[library][name] in refusal(corpus(library)[name])


TREE = {
    "$ref": "#/$defs/Tree",
    "$defs": {
        "Leaf": {"type": "object", "properties": {"tag": {"const": "leaf", "default": "leaf"}}},
        "Tree": {
            "type": "object",
            "properties": {
                "tag": {"const": "tree", "default": "tree"},
                "below": {"oneOf": [{"$ref": "#/$defs/Leaf"}, {"$ref": "#/$defs/Tree"}]},
            },
        },
    },
}
TEXT = {"type": "string"}
NAMES = {"type": "string", "enum": ["a", "b"]}
SERDE = {
    "oneOf": [
        {"type": "object", "required": ["A"], "properties": {"A": {"type": "integer"}}, "additionalProperties": False},
        {"type": "string", "enum": ["B"]},
        {"type": "object", "required": ["C"], "properties": {"C": TEXT}, "additionalProperties": False},
    ]
}
COMPOSITE = {
    "type": "object",
    "allOf": [
        {"type": "object", "properties": {"a": TEXT}, "required": ["a"]},
        {"type": "object", "properties": {"b": TEXT}},
    ],
    "unevaluatedProperties": False,
}
NAMED = {"type": "object", "propertyNames": NAMES, "properties": {"a": {"const": 1}, "c": {}}}
ONE_OF = [{"type": "integer"}, {"type": "boolean"}, {"type": "null"}]


@pytest.mark.parametrize(
    ("schema", "fits", "does_not"),
    [
        (TREE, [{"tag": "tree", "below": {"tag": "leaf"}}, {}], [{"below": {}}, {"below": {"tag": "x"}}]),
        ({"oneOf": ONE_OF}, [5, True, None], ["x", 1.5]),
        ({"oneOf": [{"const": 1}, {"enum": ["1", True]}]}, [1, "1", True], [2, False]),
        ({"propertyNames": NAMES, "type": "object"}, [{"a": 1}, {"a": 1, "b": 2}, {}], [{"c": 1}]),
        ({"propertyNames": {"pattern": "^x"}, "type": "object"}, [{"x1": 1}, {}], [{"a": 1}]),
        ({"propertyNames": {"maxLength": 2}, "type": "object"}, [{"ab": 1}], [{"abc": 1}]),
        ({"propertyNames": {"format": "uuid", "type": "string"}, "type": "object"}, [{"a": 1}], []),
        (NAMED, [{"a": 1}], [{"a": 2}, {"c": 1}]),
        ({"type": "array", "items": NAMES, "uniqueItems": True}, [[], ["b", "a"], ["a"]], [["a", "a"]]),
        ({"type": "array", "items": NAMES, "uniqueItems": True, "minItems": 2}, [["b", "a"]], [[], ["a"]]),
        ({"type": "array", "uniqueItems": False}, [[1, 1]], [1]),
        ({"type": "array", "uniqueItems": True, "maxItems": 1}, [[1], []], [[1, 1]]),
        (TEXT | {"format": "color"}, ["x"], [1]),
        (TEXT | {"format": "uuid"}, ["00000000-0000-4000-8000-000000000000"], ["x"]),
        (TEXT | {"format": "time", "pattern": r"^\d\d:\d\d$"}, ["12:30"], ["12"]),
        (TEXT | {"pattern": r"^(?=.*[a-z])(?=.*\d).+$"}, ["a1", "1 a"], ["a", "1", ""]),
        (TEXT | {"pattern": r"^(?!\.)(?!.*\.\.)[a-z.]+@x$"}, ["a.b@x"], [".a@x", "a..b@x"]),
        ({"type": "number", "minimum": -3.4e38, "maximum": 3.4e38}, [0, -1.5, 1e14], ["x"]),
        ({"type": "number", "minimum": 0, "maximum": 1e300}, [0, 7.5], [-1]),
        ({"type": "integer", "maximum": 2**64}, [0, -5, 2**59], [1.5]),
        ({"type": ["number", "null"], "minimum": 0}, [None, 2], [-1]),
        ({"type": "object", "if": {"required": ["a"]}, "unevaluatedProperties": True}, [{"b": 1}], [1]),
        ({"x-guidance": {"lenient": True, "whitespace_flexible": True}, "type": "integer"}, [1], ["x"]),
        (SERDE, ["B", {"A": 1}, {"C": "x"}], [{"A": 1, "C": "x"}, {}, "A"]),
        (COMPOSITE, [{"a": "x"}, {"a": "x", "b": "y"}], [{"a": "x", "c": 1}, {"b": "y"}]),
        ({"type": "object", "properties": {"a": {}}, "unevaluatedProperties": False}, [{}, {"a": 1}], [{"b": 1}]),
        ({"$schema": "https://spec.openapis.org/oas/3.1/dialect/base", "type": "integer"}, [1], ["x"]),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_a_schema_is_held_as_it_is_meant(schema: dict[str, Any], fits: list[Any], does_not: list[Any]) -> None:
    grammar = compiled(schema)
    judge = jsonschema_rs.validator_for({k: v for k, v in schema.items() if k != "$schema"})
    for value in fits:
        assert judge.is_valid(value)
        assert accepts(grammar, value)
    for value in does_not:
        assert not accepts(grammar, value)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"properties": {"a": {"items": {"uniqueItems": True}}}}, "properties.a.items.uniqueItems"),
        ({"$defs": {"A": {"not": {"type": "null"}}}, "$ref": "#/$defs/A"}, "$defs.A.not"),
        ({"anyOf": [{}, {"contains": {}}]}, "anyOf[1].contains"),
        ({"properties": {"a": {"pattern": r"^a(?!b)"}}}, "properties.a.pattern"),
        ({"properties": {"a": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}}, "properties.a.oneOf"),
        ({"properties": {"a": {"propertyNames": {"pattern": "^a", "minLength": 2}}}}, "properties.a.propertyNames"),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, "if"),
        ({"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 2}, "minProperties"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "object", "unevaluatedProperties": {"type": "null"}}, "unevaluatedProperties"),
        ({"unevaluatedProperties": False, "anyOf": [{"properties": {"a": {}}}]}, "unevaluatedProperties"),
        ({"type": "string", "required": True}, "required must be a list"),
        ({"properties": {"a": {"required": "b"}}}, "properties.a.required must be a list"),
        ({"type": "integer", "minimum": 10**30}, "minimum"),
        ({"properties": {"a": {"properties": {"b": {"type": "strin"}}}}}, "properties.a.properties.b: "),
        ({"$defs": {"A": {"type": "dict"}}, "properties": {"a": {"$ref": "#/$defs/A"}}}, "$defs.A: "),
        ({"properties": {"a": {"$ref": "http://example.com/x"}}}, "properties.a: "),
        ({"properties": {"a": "string"}}, "properties.a must be a schema"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_cannot_be_held_is_named_where_it_stands(schema: dict[str, Any], place: str) -> None:
    assert f"cannot be used: {place}" in refusal(schema)


@pytest.mark.parametrize(
    ("schema", "noted", "value"),
    [
        ({"type": "array", "items": TEXT, "uniqueItems": True}, "uniqueItems", ["a", "a"]),
        ({"type": "object", "properties": {"a": TEXT | {"pattern": "^a(?!b)"}}}, "properties.a.pattern", {"a": "ab"}),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf", 1),
        ({"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 2}, "minProperties", {}),
        ({"type": "integer", "not": {"const": 5}}, "not", 5),
    ],
    ids=str,
)
def test_leniency_leaves_out_what_cannot_be_held_and_says_so(schema: dict[str, Any], noted: str, value: Any) -> None:
    refusal(schema)
    grammar = compiled(schema, lenient=True)
    assert grammar.notes == (noted,)
    assert accepts(grammar, value)


LOOKS_AHEAD = [
    r"^(?=.*[a-z])(?=.*\d).+$",
    r"^(?!\.)(?!.*\.\.)([a-z'.]*)[a-z]$",
    r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
    r"^(?!a)b*a*$",
    r"^(?!.*ab)[abc]*$",
    r"^(?![ab]+$)[abc]*$",
    r"^(?!.*[^ab])[abc]*$",
    r"^(?=.{1,2}\.?$)[ab]+\.?$",
    *patterns._KNOWN,
]


@pytest.mark.parametrize("pattern", LOOKS_AHEAD)
def test_patterns_that_look_ahead_match_the_same_without(pattern: str) -> None:
    found = patterns.without_look_ahead(pattern)
    assert found
    assert not any("(?=" in each or "(?!" in each for each in found)
    alphabet = "PT1YDMW" if pattern in patterns._KNOWN else "ab1.c-"
    for size in range(6):
        for letters in itertools.product(alphabet, repeat=size):
            text = "".join(letters)
            assert bool(re.search(pattern, text)) == all(re.search(each, text) for each in found), text


@pytest.mark.parametrize(
    "pattern", ["^(?=a)b|c$", "a(?=b)", "^(?!foo)bar", "^a(?!b)$", "^(?!x|y)z", r"^(?<=a)b", "^(?=(?!a)b)b"]
)
def test_other_patterns_that_look_around_stay_what_they_are(pattern: str) -> None:
    assert patterns.without_look_ahead(pattern) is None


@pytest.mark.parametrize(
    ("branches", "exclusive"),
    [
        ([{"type": "string"}, {"type": "number"}], True),
        ([{"type": "integer"}, {"type": "number"}], False),
        ([{"const": 1}, {"const": True}], True),
        ([{"const": 1}, {"const": 1.0}], False),
        ([{"enum": ["a", "b"]}, {"enum": ["b", "c"]}], False),
        ([{"const": "a"}, {"type": "string"}], False),
        ([{"const": "a"}, {"type": "integer"}], True),
        ([{}, {"type": "string"}], False),
        ([False, {}], True),
        ([{"anyOf": [{"type": "null"}, {"type": "array"}]}, {"type": "object"}], True),
    ],
    ids=str,
)
def test_alternatives_exclude_each_other_only_where_that_is_certain(branches: list[Any], exclusive: bool) -> None:
    assert alternatives.Alternatives({}).exclusive(branches) is exclusive


def test_alternatives_are_judged_as_the_client_wrote_them() -> None:
    """Narrowed, these would exclude each other; as they are, an object without the tag is of both."""
    names = {"type": "object", "propertyNames": {"enum": ["a"]}}
    overlapping = {"oneOf": [names, {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}]}
    assert "oneOf cannot be held to" in refusal(overlapping)


def nest(key: str, depth: int, width: int) -> dict[str, Any]:
    """A small text that stands for width ** depth schemas."""
    defs = {f"d{i}": {key: [{"$ref": f"#/$defs/d{i + 1}"}] * width} for i in range(depth)}
    return {"$defs": defs | {f"d{depth}": {"type": "string"}}}


HUGE = {
    "comparisons": nest("anyOf", 6, 30) | {"oneOf": [{"$ref": "#/$defs/d0"}, {"$ref": "#/$defs/d1"}]},
    "alternatives": {"oneOf": [{"const": i} for i in range(1000)]},
    "patterns": {"properties": {f"p{i}": {"type": "string", "pattern": rf"\x61{i}"} for i in range(1000)}},
    "look-ahead": {"type": "string", "pattern": "^" + "(?=a)" * 100_000},
    "names": {
        "propertyNames": {"enum": [f"n{i}" for i in range(1000)]},
        "additionalProperties": {"enum": ["x" * 1000]},
    },
    "lists": {"type": "array", "uniqueItems": True, "items": {"enum": ["x" * 1000, "y", "z"]}},
    "faults": {"properties": {f"p{i}": {} for i in range(1000)} | {"last": {"type": "dict"}}},
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_schema_made_to_take_long_is_asked_about_a_bounded_number_of_times(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, asked, compared = compiler(), 0, 0
    why_not, disjoint = used._why_not, alternatives.Alternatives._disjoint

    def counted(schema: Any) -> str:
        nonlocal asked
        asked += 1
        return why_not(schema)

    def compare(self: alternatives.Alternatives, a: Any, b: Any, depth: int) -> bool:
        nonlocal compared
        compared += 1
        return disjoint(self, a, b, depth)

    monkeypatch.setattr(used, "_why_not", counted)
    monkeypatch.setattr(alternatives.Alternatives, "_disjoint", compare)
    try:
        compiled(HUGE[kind])
    except InvalidInput as error:
        assert len(error.message) < 500
    assert asked <= 1002
    assert compared <= 2 * 20_000


def test_a_property_that_says_of_itself_that_it_is_required_is_required() -> None:
    schema = {"type": "object", "properties": {"a": TEXT | {"required": True}, "b": TEXT | {"required": False}}}
    grammar = compiled(schema)
    assert accepts(grammar, {"a": "x"})
    assert not accepts(grammar, {"b": "x"})
    assert not accepts(grammar, {})
