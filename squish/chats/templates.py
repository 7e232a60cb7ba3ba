"""Variables in texts that are used again and again: `{{date}}`, `{{model}}`, `{{input}}`, `{{clipboard}}`,
`{{file:PATH}}`, and names of the user's own, with a default or without: `{{language|English}}`.

They stand in the system prompts of presets and in prompt templates; a message that is typed is never looked through.
Pure but for the files that a template names. It knows no front door.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec

from squish.chats.messages import ChatSettings
from squish.errors import InvalidInput
from squish.files import read_regular
from squish.text import clean

LARGEST_FILE = 512 * 1024
INPUT, CLIPBOARD = "input", "clipboard"
_KNOWN = ("date", "model", INPUT, CLIPBOARD)
_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_VARIABLE = re.compile(
    r"\{\{[ \t]*(?:file:[ \t]*(?P<path>[^{}\n]+?)|(?P<name>" + _NAME + r")(?P<default>[ \t]*\|[^{}\n]*)?)[ \t]*\}\}"
)
_GIVEN = re.compile(f"({_NAME})=(.*)", re.DOTALL)
_NEEDS = {
    INPUT: "{{input}} stands for a message, which is there for a prompt template and not for a system prompt.",
    CLIPBOARD: "The clipboard cannot be read here, or holds no text.",
}


@dataclass(frozen=True, slots=True)
class Variable:
    """Something that a text wants a value for. default: None where it must be given."""

    name: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Around:
    """What Squish knows by itself when a text is filled. input and clipboard: None where there is none."""

    directory: Path
    today: date
    model: str
    input: str | None = None
    clipboard: str | None = None


def variables(text: str) -> tuple[Variable, ...]:
    """Those that somebody has to give values for, in their order, each once. A default counts wherever it stands."""
    found: dict[str, Variable] = {}
    for match in _VARIABLE.finditer(text):
        name = match["name"]
        if name and name not in _KNOWN and (name not in found or found[name].default is None):
            found[name] = Variable(name, _default(match))
    return tuple(found.values())


def has_variables(text: str) -> bool:
    """Whether anything in it is replaced."""
    return _VARIABLE.search(text) is not None


def uses(text: str, name: str) -> bool:
    """Whether the text says `{{input}}` or `{{clipboard}}`, which somebody has to fetch."""
    return any(match["name"] == name for match in _VARIABLE.finditer(text))


def given(words: Iterable[str], param: str | None = None) -> dict[str, str]:
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


def check_values(texts: Iterable[str], values: Mapping[str, str]) -> None:
    """Raises InvalidInput naming every variable of the texts that has no value, and every value without a variable."""
    wanted = [each for text in texts for each in variables(text)]
    names = list(dict.fromkeys(each.name for each in wanted))
    covered = {each.name for each in wanted if each.default is not None} | set(values)
    if missing := [name for name in names if name not in covered]:
        written = " ".join(f"--var {name}=…" for name in missing)
        raise InvalidInput(f"No value is given for {', '.join(missing)}.", hint=f"Add: {written}", param="--var")
    if unknown := [name for name in values if name not in names]:
        there = f"Variables: {', '.join(names)}." if names else "There are no variables."
        raise InvalidInput(f"No variable is named {', '.join(unknown)}.", hint=there, param="--var")


def filled_text(text: str, values: Mapping[str, str], around: Around) -> str:
    """A text with all variables replaced, once: what a value or a file holds is not looked through again.

    Values without a variable are left alone. Raises InvalidInput for a variable without a value, and for a file that
    cannot be read.
    """
    known = {"date": around.today.isoformat(), "model": around.model, INPUT: around.input, CLIPBOARD: around.clipboard}
    wanted = {each.name: each.default for each in variables(text)} | dict(values)

    def value(match: re.Match[str]) -> str:
        if match["path"]:
            return _file(around.directory / Path(match["path"]).expanduser())
        found = known[match["name"]] if match["name"] in known else wanted[match["name"]]
        if found is None:
            raise InvalidInput(_NEEDS.get(match["name"], f"No value is given for {match['name']}."), param="--var")
        return found

    return _VARIABLE.sub(value, text)


def filled(preset: ChatSettings, values: Mapping[str, str], around: Around) -> ChatSettings:
    """The preset with the variables of its system prompt replaced. Raises InvalidInput."""
    check_values([preset.system], values)
    return msgspec.structs.replace(preset, system=filled_text(preset.system, values, around))


def _default(match: re.Match[str]) -> str | None:
    return match["default"].strip().removeprefix("|").strip() if match["default"] else None


def _file(path: Path) -> str:
    try:
        return read_regular(path, LARGEST_FILE, follow=True).decode("utf-8-sig").rstrip()
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise InvalidInput(f"The template's file {clean(str(path))} cannot be read: {reason}.", param="--var")
