"""Where a schema does not compile: the innermost place that a probe refuses. It knows where a schema holds schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Probe = Callable[[Mapping[str, Any]], str]
"""Why the engine cannot hold an answer to a schema; "" when it can."""

ONE_SCHEMA = frozenset({"items", "additionalItems", "additionalProperties"})
LISTS_OF_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
MAPS_OF_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
PROBES = 500  # schemas that are tried at the most for one answer


def blamed(schema: Any, probe: Probe, definitions: Mapping[str, Any]) -> str:
    """The innermost place of a schema that does not compile, as far as it is found soon. definitions: what its
    references lead to."""
    place, left = "", PROBES
    while isinstance(schema, dict):
        for inside, each in _inside(schema):
            left -= 1
            if left < 0:
                return place
            if isinstance(each, dict) and probe({**definitions, **each}):
                place, schema = f"{place}.{inside}" if place else inside, each
                break
        else:
            return place
    return place


def _inside(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas in a schema, with their places in it."""
    for key, value in schema.items():
        if key in MAPS_OF_SCHEMAS and isinstance(value, dict):
            yield from ((f"{key}.{name}", each) for name, each in value.items())
        elif key in LISTS_OF_SCHEMAS and isinstance(value, list):
            yield from ((f"{key}[{i}]", each) for i, each in enumerate(value))
        elif key in ONE_SCHEMA:
            yield key, value
