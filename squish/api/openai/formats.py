"""`response_format` in OpenAI's shape and in those of others, as what the answer has to match. Pure."""

from __future__ import annotations

from typing import Any

from squish.api.fields import tools
from squish.api.openai.requests import Format
from squish.errors import InvalidInput
from squish.format import schemas
from squish.generation import ResponseFormat

_BELONGS = {
    "text": (),
    "json_object": ("schema", "json_schema"),
    "json_schema": ("schema", "json_schema"),
    "regex": ("regex",),
    "lark": ("lark",),
}
"""Which fields say what a type of format is."""


def response_format(asked: Format | None) -> ResponseFormat | None:
    """What the answer has to match, if anything. Raises InvalidInput for a type without its text, or with another's."""
    if asked is None:
        return None
    if asked.type not in _BELONGS:
        known = "text, json_object, json_schema, regex or lark"
        raise InvalidInput(f"response_format.type must be {known}.", param="response_format.type")
    for field in ("schema", "json_schema", "regex", "lark"):
        if getattr(asked, field) is not None and field not in _BELONGS[asked.type]:
            message = f"response_format.{field} does not belong to a format of type {asked.type}."
            raise InvalidInput(
                message, hint=f'Set response_format.type to "{_type_of(field)}".', param=f"response_format.{field}"
            )
    if asked.type == "text":
        return None
    if asked.type in ("json_object", "json_schema"):
        return _schema(asked)
    text = asked.regex if asked.type == "regex" else asked.lark
    field = f"response_format.{asked.type}"
    if text is None:
        raise InvalidInput(f"{field} is missing.", param=field)
    if asked.type == "regex":
        return ResponseFormat("regex", text, field)
    schemas.check_grammar(text, field)
    return ResponseFormat("lark", text, field)


def _type_of(field: str) -> str:
    return "json_schema" if field == "schema" else field


def _schema(asked: Format) -> ResponseFormat:
    """JSON, held to a schema where there is one. It can stand in json_schema.schema, or beside type."""
    named, field = asked.json_schema, "response_format.json_schema.schema"
    if named is not None and named.name is not None:
        tools.check_name(named.name, "response_format.json_schema.name")
    given: dict[str, Any] | None = named.schema if named is not None else None
    if given is None and asked.schema is not None:
        given, field = asked.schema, "response_format.schema"
    elif asked.schema is not None and asked.schema != given:
        message = "response_format.schema and response_format.json_schema.schema differ; send one of them."
        raise InvalidInput(message, param="response_format.schema")
    if given or (given is not None and asked.type == "json_schema"):
        lenient = False in (asked.strict, named.strict if named is not None else None)
        return schemas.answer_format(given, field, lenient)
    if asked.type == "json_object" and (named is None or given is not None):
        return ResponseFormat("json_object")
    field = "response_format.json_schema" + (".schema" if named is not None else "")
    raise InvalidInput(f"{field} is missing.", param=field)
