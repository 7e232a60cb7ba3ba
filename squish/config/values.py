"""Values of settings: read from a variable's text or as the file has them, and what is wrong with them. Pure."""

from __future__ import annotations

from pathlib import Path

from squish.config import durations, mcp_server, model_defaults
from squish.config.keys import KEYS, Key
from squish.errors import ConfigError
from squish.text import is_utf8, whole


def from_variable(key: Key, text: str) -> object:
    """The value that a variable's text stands for. Raises ConfigError naming the variable."""
    if not is_utf8(text):
        raise not_utf8(key.variable)
    value: object = text
    if key.kind == "flag":
        value = {"0": False, "false": False, "no": False, "off": False}.get(text.lower(), text)
        value = {"1": True, "true": True, "yes": True, "on": True}.get(text.lower(), value)
    elif key.kind == "whole":
        number = whole(text.removeprefix("-"))
        value = text if number is None else -number if text.startswith("-") else number
    if wrong := _wrong(key, value):
        text = text.rpartition("@")[2] if key.kind == "address" else text  # without a password
        shown = "" if key.kind == "secret" else f" is {text!r}; it"
        hint = f"Set {key.variable} to 1 or 0." if key.kind == "flag" else None
        raise ConfigError(f"{key.variable}{shown} {wrong}.", hint=hint, param=key.variable)
    return convert(key, value)


def not_utf8(variable: str) -> ConfigError:
    """The error for a variable whose bytes are not text."""
    return ConfigError(
        f"{variable} has bytes that are not UTF-8.", hint=f"Set {variable} to a text in UTF-8.", param=variable
    )


def wrong_in_file(name: str, value: object) -> str | None:
    """What the value of a key in the file must be, where it is not."""
    return _wrong(next(key for key in KEYS if key.name == name), value)


def _wrong(key: Key, value: object) -> str | None:
    """What a value must be, where it is not: `must be …`."""
    match key.kind:
        case "flag":
            return None if isinstance(value, bool) else "must be true or false"
        case "whole":
            if isinstance(value, bool) or not isinstance(value, int):
                return "must be a whole number"
            return None if key.low <= value <= key.high else f"must be between {key.low:g} and {key.high:g}"
        case "time":
            return _wrong_time(key.name, value)
        case "choice":
            known = str(value) in key.choices and not isinstance(value, bool)
            return None if known else f"must be one of {', '.join(key.choices)}"
        case "secret" if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            return "has characters that no HTTP header can carry"
        case "address" if not (isinstance(value, str) and value.startswith(("http://", "https://"))):
            return "must be an address that begins with https://"
        case _:
            return None if isinstance(value, str) and value.strip() else "must be a text that is not empty"


def convert(key: Key, value: object) -> object:
    """A value that is not wrong, as Settings has it."""
    match key.kind:
        case "path":
            return Path(str(value)).expanduser().absolute()
        case "address":
            return str(value).rstrip("/")
        case "time":
            return durations.seconds(str(value))
        case "choice":
            return str(value)
        case _:
            return value.strip() if isinstance(value, str) else value


def _wrong_text(name: str, value: object) -> str | None:
    return None if isinstance(value, str) and value.strip() else "must be a text that is not empty"


def _wrong_time(name: str, value: object) -> str | None:
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            durations.seconds(str(value))
            return None
    except ValueError:
        pass
    return 'must be a time: seconds, or a text like "10m" or "2h"; -1 is forever'


WRONG_IN_TABLE = {
    "keys": _wrong_text,
    "model_keep_alive": _wrong_time,
    "draft": _wrong_text,
    "mcp": mcp_server.wrong,
    model_defaults.TABLE: model_defaults.wrong,
}
