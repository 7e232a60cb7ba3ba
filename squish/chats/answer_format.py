"""The format of answers as people write it: `text`, `json`, a JSON schema, or `regex:` with a regular expression.

Pure. What a schema may be is checked as for the API; whether the engine can hold an answer to it, it says when asked.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import msgspec

from squish.errors import InvalidInput
from squish.files import read_regular
from squish.format import schemas
from squish.generation import ResponseFormat

FIELD = "response_format"
_REGEX = "regex:"
_LOOK_AROUND = re.compile(r"(?<!\\)(?:\\\\)*(\(\?(?:=|!|<=|<!))")
_WRONG_ANYWHERE = (
    "missing )", "unbalanced parenthesis", "unterminated character set", "min repeat greater", "bad character range"
)  # fmt: skip
_LARGEST_FILE = 1_000_000  # bytes


def tidied(text: str) -> str:
    """A format on one line, as settings keep it: empty for text, which holds an answer to nothing. Unchecked."""
    text = text.strip()
    if text.startswith(_REGEX):
        return text.replace("\r", "\\r").replace("\n", "\\n")
    return "" if text == "text" else re.sub(r"[\r\n]+", " ", text)  # JSON has no line breaks but between values


def checked(text: str) -> str:
    """The same of a text that was just written. Raises InvalidInput where it is a pattern that can be none."""
    text = tidied(text)
    if text.startswith(_REGEX) and (reason := _why_no_pattern(text.removeprefix(_REGEX))):
        raise InvalidInput(f"{FIELD}: {reason}.", hint="Write another pattern behind regex:.", param=FIELD)
    return text


def _why_no_pattern(pattern: str) -> str:
    """What the engine's expressions and Python's do not differ in; the engine itself says more, once it is asked."""
    if found := _LOOK_AROUND.search(pattern):
        return f"patterns have no look-around, such as {found[1]}"
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(pattern)
    except re.error as error:
        return f"not a pattern: {error}" if error.msg.startswith(_WRONG_ANYWHERE) else ""
    except (RecursionError, OverflowError):
        return ""
    return ""


def response_format(text: str) -> ResponseFormat | None:
    """What an answer has to match, if anything. Raises InvalidInput."""
    if text in ("", "text"):
        return None
    if text == "json":
        return ResponseFormat("json_object", field=FIELD)
    if text.startswith(_REGEX) and text != _REGEX:
        return ResponseFormat("regex", text.removeprefix(_REGEX), FIELD)
    if text.startswith("{"):
        return schemas.answer_format(_schema(text), FIELD, lenient=False)
    hint = "A schema is a JSON object; regex: is followed by a regular expression."
    raise InvalidInput(f"{FIELD} must be text, json, a JSON schema or regex:….", hint=hint, param=FIELD)


def _schema(text: str) -> dict[str, Any]:
    data = text.encode()
    schemas.check_depth(data, FIELD)
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except ValueError as error:
        raise InvalidInput(f"{FIELD} is not a JSON schema: {error}", param=FIELD) from None


def from_command_line(given: str) -> str:
    """A format as it stands on a command line, where a schema is the name of a file. Raises InvalidInput."""
    if given in ("text", "json") or given.startswith((_REGEX, "{")):
        text = tidied(given)
    else:
        text = tidied(_content(given))
        if not text.startswith("{"):
            raise InvalidInput(f"--format: {given} is not a JSON schema, which is an object.", param="--format")
    try:
        response_format(checked(text))
    except InvalidInput as error:
        written = given if text != tidied(given) else _short(given)  # the name of a file is never cut
        raise InvalidInput(f"--format {written}: {error.message}", hint=error.hint, param="--format") from None
    return text


def _content(name: str) -> str:
    try:
        return read_regular(Path(name).expanduser(), _LARGEST_FILE, follow=True).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(f"--format: {name} is not UTF-8 text.", param="--format") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "--format takes text, json, regex:… or a file with a JSON schema."
        raise InvalidInput(f"--format: {name} cannot be read: {reason}.", hint=hint, param="--format") from None


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
