"""Bytes to a Struct, and what is wrong with bytes that do not decode, in words for the client's author. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec

from squish.errors import InvalidInput

_SEND = "Send a JSON object."
_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
_FOUND = _WANTED | {"int": "a number", "float": "a number with a fraction", "bool": "a boolean"}
_MISFIT = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

Kind = TypeVar("Kind", bound=msgspec.Struct)


def decode(body: bytes, kind: type[Kind]) -> Kind:
    """A request body as a value. Raises InvalidInput, with the path of the field where there is one."""
    if not body.strip():
        raise InvalidInput("The request body is empty.", hint=_SEND)
    try:
        body.decode()  # a field that nobody reads is not looked at below
        return msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The request body is not UTF-8 text: byte {error.start} is not.") from None
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None
    except msgspec.DecodeError as error:
        raise _malformed(body, str(error)) from None
    except RecursionError:
        raise InvalidInput("The request body is nested too deeply.") from None


def _misfit(reason: str) -> InvalidInput:
    """msgspec's words, `Expected …, got … - at `$.a[0].b``, as an error that names the field."""
    text, _, path = reason.partition(" - at `")
    is_key, path = path.startswith("key` in `"), path.rstrip("`").removeprefix("key` in `")
    param = path.removeprefix("$").removeprefix(".").partition("[...]")[0] or None
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", text):
        param = f"{param}.{missing[1]}" if param else missing[1]
        return InvalidInput(f"{param} is missing.", param=param)
    name = param or "The request body"
    misfit = _MISFIT.fullmatch(text)
    if misfit is None:
        return InvalidInput(f"{name}: {text}.", param=param)
    kinds = [_WANTED.get(each, each) for each in misfit[1].split(" | ") if each != "null"]
    wanted, found = " or ".join(kinds), _FOUND.get(misfit[2], misfit[2])
    if is_key or path.endswith("[...]"):
        return InvalidInput(
            f"{name} must have {'keys' if is_key else 'values'}, each {wanted}, not {found}.", param=param
        )
    return InvalidInput(f"{name} must be {wanted}, not {found}.", param=param)


def _malformed(body: bytes, reason: str) -> InvalidInput:
    """What is wrong with a text that is not JSON, and where: Python's parser accepts more and reports more."""
    try:
        value = json.loads(body, parse_constant=_NoNumber)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        return InvalidInput(f"The request body is not valid JSON: {error.msg} ({where}).", hint=_SEND)
    except (ValueError, RecursionError):  # a number of thousands of digits, or brackets without an end
        return InvalidInput(f"The request body is not valid JSON: {reason}.", hint=_SEND)
    for path, each in _leaves(value):
        if isinstance(each, _NoNumber):
            return InvalidInput(f"{path} is {each.name}, which JSON has no number for.", param=path)
        if isinstance(each, str) and _SURROGATE.search(each):
            message = f"{path} has half of a surrogate pair, which is not a character."
            return InvalidInput(message, hint=r"A character beyond \uffff is escaped in two halves.", param=path)
    return InvalidInput(f"The request body is not valid JSON: {reason}.", hint=_SEND)


class _NoNumber:
    """NaN or an infinity, which Python's reader takes for a number."""

    def __init__(self, name: str) -> None:
        self.name = name


def _leaves(value: Any) -> list[tuple[str, Any]]:
    """Everything in a value that holds nothing else, keys too, with its path, in order."""
    found: list[tuple[str, Any]] = []
    pending = [("", value)]
    while pending:
        path, each = pending.pop()
        if isinstance(each, dict):
            found += [(path or "The request body", key) for key in each]
            inside = [(f"{path}.{key}" if path else key, item) for key, item in each.items()]
        elif isinstance(each, list):
            inside = [(f"{path}[{i}]", item) for i, item in enumerate(each)]
        else:
            found.append((path, each))
            continue
        pending += reversed(inside)
    return found
