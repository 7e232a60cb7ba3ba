"""What stands for something else in a server's environment and headers: `${env:NAME}`, `${file:PATH}`, `${NAME}`.

The values are secrets: they go to the server and nowhere else. An error names where one should have come from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from squish.errors import ConfigError
from squish.files import read_regular
from squish.system.working_directory import working_directory

_HINT = "Use ${env:NAME} or ${file:PATH}."
_LARGEST = 64 << 10  # bytes
_PLACE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def filled(text: str, of: str, environment: Mapping[str, str] | None = None) -> str:
    """The text with every place filled. of: what it is the value of, for people.

    Raises ConfigError for a variable that is not set, a file that cannot be read, and a place of another kind.
    """
    env = os.environ if environment is None else environment
    return _PLACE.sub(lambda found: _value(found[1], of, env), text)


def _value(place: str, of: str, env: Mapping[str, str]) -> str:
    kind, colon, rest = place.partition(":")
    if kind == "file" and colon:
        return _from_file(rest, of)
    if kind in ("userHome", "workspaceFolder") and not colon:
        return str(Path.home() if kind == "userHome" else working_directory())
    if kind == "env" and colon:
        name, default = rest, ""
    else:  # as Claude Code writes it, with a default or without
        name, has_default, default = place.partition(":-")
        if has_default and not env.get(name):
            return default
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{of} has ${{{place}}}, which Squish does not know.", hint="Use ${env:NAME} or ${file:PATH}."
        )
    if not (value := env.get(name, "").strip()):
        raise ConfigError(f"{of} is taken from {name}, which is not set.", hint=f"Set the variable {name}.", param=name)
    return value


def _from_file(name: str, of: str) -> str:
    path = Path(name).expanduser()
    try:
        return read_regular(path, _LARGEST, follow=True).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"{of} is taken from {path}, which cannot be read: {why}.", param=name) from None
