"""Variables in the system prompt of a preset: `{{date}}`, `{{file:PATH}}`, and names of the user's own.

Pure but for the files that a template names. It knows no front door.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import msgspec

from squish.chats.messages import ChatSettings
from squish.errors import InvalidInput
from squish.files import read_regular
from squish.text import clean

LARGEST_FILE = 512 * 1024
_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_VARIABLE = re.compile(r"\{\{[ \t]*(?:file:[ \t]*(?P<path>[^{}\n]+?)|(?P<name>" + _NAME + r"))[ \t]*\}\}")
_GIVEN = re.compile(f"({_NAME})=(.*)", re.DOTALL)
_DATE = "date"


def variables(text: str) -> tuple[str, ...]:
    """The names that somebody has to give values for, in their order, each once."""
    names = [match["name"] for match in _VARIABLE.finditer(text) if match["name"]]
    return tuple(dict.fromkeys(name for name in names if name != _DATE))


def has_variables(text: str) -> bool:
    """Whether anything in it is replaced."""
    return _VARIABLE.search(text) is not None


def given(words: list[str], param: str | None = None) -> dict[str, str]:
    """Values as people write them, `name=value`. Raises InvalidInput."""
    values: dict[str, str] = {}
    for word in words:
        match = _GIVEN.fullmatch(word)
        if match is None:
            raise InvalidInput(f"{clean(word)} is not name=value.", param=param)
        values[match[1]] = match[2]
    return values


def taken_apart(line: str, names: Mapping[str, object]) -> tuple[str, dict[str, str]]:
    """`NAME key=value "key=two words"` as the name of a preset and values; names: those there are.

    Raises InvalidInput.
    """
    if line in names or "=" not in line:
        return line, {}
    try:
        words = shlex.split(line)
    except ValueError:
        raise InvalidInput("A quote is not closed.") from None
    first = next((at for at, word in enumerate(words) if "=" in word), len(words))
    return " ".join(words[:first]), given(words[first:])


def filled(preset: ChatSettings, values: Mapping[str, str], directory: Path, today: date) -> ChatSettings:
    """The preset with all variables replaced, once: what a value or a file holds is not looked through again.

    Raises InvalidInput for a variable without a value, a value without a variable, and a file that cannot be read.
    """
    wanted = variables(preset.system)
    if missing := [name for name in wanted if name not in values]:
        written = " ".join(f"--var {name}=…" for name in missing)
        raise InvalidInput(f"The preset needs a value for {', '.join(missing)}.", hint=f"Add: {written}", param="--var")
    if unknown := [name for name in values if name not in wanted]:
        there = f"It has: {', '.join(wanted)}." if wanted else "It has no variables."
        raise InvalidInput(f"The preset has no variable {', '.join(unknown)}.", hint=there, param="--var")

    def value(match: re.Match[str]) -> str:
        if match["path"]:
            return _file(directory / Path(match["path"]).expanduser())
        return today.isoformat() if match["name"] == _DATE else values[match["name"]]

    return msgspec.structs.replace(preset, system=_VARIABLE.sub(value, preset.system))


def _file(path: Path) -> str:
    try:
        return read_regular(path, LARGEST_FILE, follow=True).decode("utf-8-sig").rstrip()
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise InvalidInput(f"The preset's file {clean(str(path))} cannot be read: {reason}.", param="--preset")
