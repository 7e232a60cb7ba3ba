"""Settings: what the user can set, where each value comes from, and where Squish keeps its files.

Defaults < config.toml < environment < flags. Flags are the front doors' business: they replace single values. KEYS is
the one list of what there is: the file, the variables, `squish config` and the reference page are made from it.
Knows nothing of models, servers or screens.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from squish.config import durations, file
from squish.errors import ConfigError, without_credentials
from squish.text import is_utf8, whole

DEFAULT_PORT = 11435
DEFAULT_ENDPOINT = "https://huggingface.co"

Kind = Literal["text", "choice", "path", "address", "secret", "whole", "time", "flag"]


@dataclass(frozen=True, slots=True)
class Key:
    """name: in config.toml, as `table.key` where it is in a table. variable: in the environment.

    in_file is False for what belongs in no file. shown_default: for people. low and high bound a number; choices are
    the texts that a choice can be.
    """

    name: str
    variable: str
    kind: Kind
    about: str
    shown_default: str
    low: float = -math.inf
    high: float = math.inf
    in_file: bool = True
    choices: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """Of Settings."""
        return self.name.rpartition(".")[2]


KEYS: tuple[Key, ...] = (
    Key("model", "SQUISH_MODEL", "text", "the model that the full-screen chat opens with and `squish bench` measures",
        "the first installed"),
    Key("host", "SQUISH_HOST", "text", "the address that `squish serve` listens on", "127.0.0.1"),
    Key("port", "SQUISH_PORT", "whole", "the port that `squish serve` listens on; 0 takes a free one",
        "11435", 0, 65535),
    Key("keep_alive", "SQUISH_KEEP_ALIVE", "time",
        'how long an idle model stays in memory: seconds, or a text like "10m" or "2h"; -1 is forever', "300"),
    Key("max_queue", "SQUISH_MAX_QUEUE", "whole", "requests that may wait for a model; more are refused with 429",
        "64", 0, 100_000),
    Key("max_concurrency", "SQUISH_MAX_CONCURRENCY", "whole", "answers that a model writes at the same time",
        "32", 1, 256),
    Key("offline", "SQUISH_OFFLINE", "flag", "make no connection at all; models must already be installed", "0"),
    Key("cache_dir", "SQUISH_CACHE_DIR", "path", "where models are kept", "~/.squish/models"),
    Key("hub_endpoint", "HF_ENDPOINT", "address", "another Hugging Face Hub", DEFAULT_ENDPOINT),
    Key("theme", "SQUISH_THEME", "text", "the colors of the full-screen chat", "squish"),
    Key("engine.cpu_precision", "SQUISH_CPU_PRECISION", "choice",
        "on a CPU, activations in products with weights: `int8`, or `float32`, slower and exact", "int8",
        choices=("int8", "float32")),
    Key("engine.wire", "SQUISH_WIRE", "choice",
        "on a Mac, `weights` keeps weights from being swapped; see docs/macos.md for the risk", "nothing",
        choices=("nothing", "weights")),
    Key("keep_awake", "SQUISH_KEEP_AWAKE", "flag",
        "on a Mac, `squish serve` keeps it from sleeping also while there is nothing to answer", "0"),
    Key("api_key", "SQUISH_API_KEY", "secret",
        "when set, every API request must send `Authorization: Bearer <key>`", "none", in_file=False),
    Key("hf_token", "HF_TOKEN", "secret", "Hugging Face token, for models with a license to accept", "none",
        in_file=False),
    Key("debug", "SQUISH_DEBUG", "flag", "show tracebacks", "0", in_file=False),
)  # fmt: skip

ELSEWHERE: tuple[tuple[str, str, str], ...] = (
    ("SQUISH_CPU_KERNEL", "the fastest", "on Linux, for diagnosis: one of the kernels that `squish doctor` lists"),
    ("SQUISH_BLAS", "auto", "on Linux, for diagnosis: `auto`, `system` or `mlx`"),
    ("OPENAI_API_KEY", "none", "the key of the server that `squish bench --compare` measures"),
    ("NO_COLOR", "none", "no colors"),
)
"""Variables that are read where they are used and set nothing in Settings: name, default, meaning."""


@dataclass(frozen=True, slots=True)
class NamedTable:
    """A table of config.toml whose keys are names of their own. example: a line of it."""

    name: str
    about: str
    example: str


TABLES: tuple[NamedTable, ...] = (
    NamedTable("keys", "other keys for the full-screen chat: what F1 lists, by its id", '"chat.new" = "ctrl+n"'),
    NamedTable("model_keep_alive", "keep_alive for single models, by the names that `squish list` shows",
        '"smollm2:135m" = "2h"'),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Secrets are hidden in repr.

    keep_alive: seconds an idle model stays loaded; negative is forever.
    max_queue: requests that may wait per model; max_concurrency: rows that one model decodes at the same time.
    model and theme: None leaves the choice to the screen. keys: binding ids of the screen and the keys for them.
    model_keep_alive: ids of models and their own keep_alive.
    """

    home: Path
    cache_dir: Path
    offline: bool = False
    debug: bool = False
    hub_endpoint: str = field(default=DEFAULT_ENDPOINT, repr=False)  # it may hold a password
    hf_token: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    keep_alive: float = 300.0
    max_queue: int = 64
    max_concurrency: int = 32
    cpu_precision: Literal["int8", "float32"] = "int8"
    wire: Literal["nothing", "weights"] = "nothing"
    keep_awake: bool = False
    model: str | None = None
    theme: str | None = None
    keys: tuple[tuple[str, str], ...] = ()
    model_keep_alive: tuple[tuple[str, float], ...] = ()

    @property
    def worker_cache(self) -> Path:
        """Where workers keep what they compile."""
        return self.home / "cache"

    @property
    def config_path(self) -> Path:
        return self.home / "config.toml"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings of config.toml and the environment (os.environ by default).

        Raises ConfigError naming the variable, or the line of the file.
        """
        resolved = resolve(environment)
        if resolved.errors:
            raise resolved.errors[0]
        return resolved.settings


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the value of a setting comes from. shown: for people; a secret is never shown. source: a place."""

    name: str
    shown: str
    source: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """errors: of the file, where it has any nothing of it counts, and of variables, which then set nothing."""

    settings: Settings
    origins: tuple[Origin, ...]
    errors: tuple[ConfigError, ...]


def resolve(environment: Mapping[str, str] | None = None) -> Resolved:
    """Every setting, where it comes from, and everything that is wrong with the file and the variables."""
    env = os.environ if environment is None else environment
    home = Path(env.get("HOME") or Path.home()) / ".squish"
    path = home / "config.toml"
    read = file.read(path, KEYS_IN_FILE, _WRONG_IN_TABLE, _wrong_in_file)
    errors = [problem.to_error(path) for problem in read.problems]
    if not is_utf8(str(home)):
        errors.append(_not_utf8("HOME"))
    values: dict[str, object] = {"home": home, "cache_dir": home / "models"}
    origins = []
    for key in KEYS:
        source = "default"
        if key.name in read.values:
            values[key.field] = _convert(key, read.values[key.name])
            source = f"{path}, line {read.lines.get(key.name, '?')}"
        if text := env.get(key.variable, "").strip():
            try:
                values[key.field] = _from_variable(key, text)
                source = key.variable
            except ConfigError as error:
                errors.append(error)
        origins.append(Origin(key.name, _show(key, values), source))
    if is_utf8(str(home)) and not is_utf8(str(values["cache_dir"])):
        errors.append(_not_utf8("SQUISH_CACHE_DIR"))
    values["keys"] = tuple((name, str(keys)) for name, keys in read.tables.get("keys", {}).items())
    kept = read.tables.get("model_keep_alive", {})
    values["model_keep_alive"] = tuple((name, durations.seconds(str(time))) for name, time in kept.items())
    for table, entries in read.tables.items():
        for name, value in entries.items():
            source = f"{path}, line {read.lines.get(f'{table}.{name}', '?')}"
            origins.append(Origin(f"{table}.{name}", str(value), source))
    return Resolved(Settings(**values), tuple(origins), tuple(errors))  # type: ignore[arg-type]


def sample() -> str:
    """A config.toml with every key, its meaning and its default, all of it commented out."""
    lines = [
        "# Settings of Squish. Environment variables beat this file, flags beat both.",
        "# Squish reads this file and never writes it again. Secrets belong in the environment, not here.",
    ]
    inside = ""
    for key in sorted((key for key in KEYS if key.in_file), key=lambda key: key.name.rpartition(".")[0]):
        lines += ["", f"# {key.about[0].upper()}{key.about[1:]}. ({key.variable})"]
        if (own := key.name.rpartition(".")[0]) != inside:
            lines.append(f"# [{(inside := own)}]")
        lines.append(f"# {key.field} = {_toml(key)}")
    for table in TABLES:
        lines += ["", f"# {table.about[0].upper()}{table.about[1:]}.", f"# [{table.name}]", f"# {table.example}"]
    return "\n".join(lines) + "\n"


def _toml(key: Key) -> str:
    """The default as config.toml would spell it; for what has none, an example."""
    if key.kind == "flag":
        return "false"
    if key.kind in ("whole", "time"):
        return key.shown_default
    return f'"{"smollm2:135m" if key.name == "model" else key.shown_default}"'


def _show(key: Key, values: Mapping[str, object]) -> str:
    if key.field not in values:
        return key.shown_default
    if key.kind == "secret":
        return "set (hidden)" if values[key.field] else "none"
    value = values[key.field]
    if key.kind == "address":
        return without_credentials(str(value))
    return str(int(value)) if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _from_variable(key: Key, text: str) -> object:
    """The value that a variable's text stands for. Raises ConfigError naming the variable."""
    if not is_utf8(text):
        raise _not_utf8(key.variable)
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
    return _convert(key, value)


def _not_utf8(variable: str) -> ConfigError:
    return ConfigError(
        f"{variable} has bytes that are not UTF-8.", hint=f"Set {variable} to a text in UTF-8.", param=variable
    )


def _wrong_in_file(name: str, value: object) -> str | None:
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
            return _wrong_time(value)
        case "choice":
            return None if value in key.choices else f"must be one of {', '.join(key.choices)}"
        case "secret" if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            return "has characters that no HTTP header can carry"
        case "address" if not (isinstance(value, str) and value.startswith(("http://", "https://"))):
            return "must be an address that begins with https://"
        case _:
            return None if isinstance(value, str) and value.strip() else "must be a text that is not empty"


def _convert(key: Key, value: object) -> object:
    match key.kind:
        case "path":
            return Path(str(value)).expanduser().absolute()
        case "address":
            return str(value).rstrip("/")
        case "time":
            return durations.seconds(str(value))
        case _:
            return value.strip() if isinstance(value, str) else value


def _wrong_text(value: object) -> str | None:
    return None if isinstance(value, str) and value.strip() else "must be a text that is not empty"


def _wrong_time(value: object) -> str | None:
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            durations.seconds(str(value))
            return None
    except ValueError:
        pass
    return 'must be a time: seconds, or a text like "10m" or "2h"; -1 is forever'


_WRONG_IN_TABLE = {"keys": _wrong_text, "model_keep_alive": _wrong_time}

KEYS_IN_FILE = {key.name: None if key.in_file else key.variable for key in KEYS}
"""Every name; for one that belongs in no file, the variable to use instead."""
