"""`text.format` and what is asked about thinking, as the engine understands it. Pure."""

from __future__ import annotations

from squish.api.fields import efforts
from squish.api.fields.tools import check_name
from squish.api.responses.requests import ReasoningOptions, TextFormat, TextOptions
from squish.errors import InvalidInput
from squish.format import schemas
from squish.generation import Effort, ResponseFormat

_AT = "text.format"


def response_format(text: TextOptions | None) -> ResponseFormat | None:
    """What the answer has to match, if anything. Raises InvalidInput naming the field."""
    asked = text.format if text is not None else None
    if asked is None:
        return None
    if asked.type not in ("text", "json_object", "json_schema"):
        raise InvalidInput(f"{_AT}.type must be text, json_object or json_schema.", param=f"{_AT}.type")
    if asked.type == "json_schema":
        return _schema(asked)
    if asked.schema is not None:
        message = f"{_AT}.schema does not belong to a format of type {asked.type}."
        raise InvalidInput(message, hint=f'Set {_AT}.type to "json_schema".', param=f"{_AT}.schema")
    return ResponseFormat("json_object", field=_AT) if asked.type == "json_object" else None


def _schema(asked: TextFormat) -> ResponseFormat:
    if asked.name is not None:
        check_name(asked.name, f"{_AT}.name")
    if asked.schema is None:
        raise InvalidInput(f"{_AT}.schema is missing.", param=f"{_AT}.schema")
    return schemas.answer_format(asked.schema, f"{_AT}.schema", asked.strict is False)


def thinking(reasoning: ReasoningOptions | None) -> tuple[bool | None, Effort | None]:
    """Whether to think, and how much; None leaves it to the model. Raises InvalidInput for an unknown word."""
    word = reasoning.effort if reasoning is not None else None
    return efforts.thinks(word, "reasoning.effort"), efforts.DEGREES.get(word or "")
