"""Reads config.toml: values, the line of each, and everything that is wrong with it.

It only reads: the file is the user's. It knows the names that are allowed, not what they mean.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from squish.errors import ConfigError
from squish.files import read_regular

Wrong = Callable[[str, object], str | None]

_LARGEST = 4 << 20  # bytes
_ASSIGNMENT = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([\w.-]+))\s*=""")
_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^.\s"']+))\s*(?:\.|$)""")
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)| \(at end of document\)")


class ConfigProblem(msgspec.Struct, frozen=True):
    """One thing that is wrong. line counts from 1; None where the whole file is meant. name: the key at fault."""

    message: str
    line: int | None = None
    hint: str | None = None
    name: str | None = None

    def to_error(self, path: Path) -> ConfigError:
        where = f"{path}, line {self.line}" if self.line else str(path)
        return ConfigError(f"{where}: {self.message}", hint=self.hint, param=self.name)


class FileValues(msgspec.Struct, frozen=True):
    """What a file sets; nothing where it has problems. lines: of each key. tables: those of free names."""

    values: Mapping[str, object] = msgspec.field(default_factory=dict)
    lines: Mapping[str, int] = msgspec.field(default_factory=dict)
    tables: Mapping[str, Mapping[str, object]] = msgspec.field(default_factory=dict)
    problems: tuple[ConfigProblem, ...] = ()


def read(
    path: Path,
    names: Mapping[str, str | None],
    tables: Mapping[str, Wrong],
    wrong: Wrong,
) -> FileValues:
    """Read the file; one that is not there sets nothing.

    names: the keys there are, and for each that belongs in no file the variable to set instead. tables: those whose
    keys are free, and what their values must be. wrong: what a key's value must be. Both None when it is right.
    """
    try:
        text = read_regular(path, _LARGEST, follow=True).decode("utf-8-sig")
    except FileNotFoundError:
        return FileValues()
    except OSError as error:
        return FileValues(
            problems=(ConfigProblem(f"it cannot be read: {error.strerror}.", hint="Fix it, or delete it."),)
        )
    except UnicodeDecodeError:
        return FileValues(problems=(ConfigProblem("it is not UTF-8 text.", hint="Save it as UTF-8."),))
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return FileValues(problems=(_syntax(str(error), text),))
    except RecursionError:
        return FileValues(problems=(ConfigProblem("it is nested too deeply.", hint="Fix it, or delete it."),))
    lines = _lines(text)
    problems: list[ConfigProblem] = []
    fixed = {name.partition(".")[0] for name in names if "." in name}
    flat = _flat(document, fixed)
    for name, value in flat.items():
        if name in fixed:
            problems += _check_table(name, value, lines, lambda name, value: None)
        elif name in tables:
            problems += _check_table(name, value, lines, tables[name])
        elif problem := _check(name, value, names, tables, wrong):
            problems.append(ConfigProblem(problem[0], lines.get(name), problem[1], name))
    if problems:
        return FileValues(problems=tuple(sorted(problems, key=lambda each: each.line or 0)))
    values = {name: value for name, value in flat.items() if name not in tables}
    return FileValues(values, lines, {name: document[name] for name in tables if name in document})


def _flat(document: Mapping[str, object], tables: set[str]) -> dict[str, object]:
    """The keys of the tables that have a fixed set of them as `table.key`."""
    flat: dict[str, object] = {}
    for name, value in document.items():
        if name in tables and isinstance(value, dict):
            flat |= {f"{name}.{key}": each for key, each in value.items()}
        else:
            flat[name] = value
    return flat


def _check(
    name: str,
    value: object,
    names: Mapping[str, str | None],
    tables: Mapping[str, Wrong],
    wrong: Wrong,
) -> tuple[str, str | None] | None:
    """Message and hint for a key of the top level that is wrong."""
    if name not in names:
        allowed = [each for each, variable in names.items() if variable is None] + sorted(tables)
        near = difflib.get_close_matches(name.lower().replace("-", "_"), allowed, 1, 0.6)
        hint = f"Did you mean {near[0]}?" if near else f"Available: {', '.join(allowed)}."
        return f"{name} is not a setting.", hint
    if variable := names[name]:
        return f"{name} belongs in no file.", f"Set the environment variable {variable} instead."
    if must := wrong(name, value):
        return f"{name} {must}.", None
    return None


def _check_table(name: str, value: object, lines: Mapping[str, int], wrong: Wrong) -> list[ConfigProblem]:
    if not isinstance(value, dict):
        return [ConfigProblem(f"{name} is a table.", lines.get(name), f"Write [{name}] and its keys below.", name)]
    return [
        ConfigProblem(f"{key} {must}.", lines.get(f"{name}.{key}"), None, f"{name}.{key}")
        for key, each in value.items()
        if (must := wrong(key, each))
    ]


def _syntax(message: str, text: str) -> ConfigProblem:
    """A problem from tomllib's message, whose place becomes the line."""
    place = _AT_LINE.search(message)
    line = int(place[1]) if place and place[1] else len(text.splitlines()) or 1
    return ConfigProblem(f"it is not TOML: {_AT_LINE.sub('', message)}.", line)


def _lines(text: str) -> dict[str, int]:
    """The line of each key, as `key` or `table.key`. Good enough for a message: texts of many lines may deceive it."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = ".".join("".join(part) for part in _PART.findall(header[1]))
            found.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            key = assignment[1] or assignment[2] or assignment[3]
            found.setdefault(f"{table}.{key}" if table else key, number)
    return found
