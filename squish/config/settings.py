"""Settings: what the user can set, where each value comes from, and where Squish keeps its files.

Defaults < config.toml < environment < flags. Flags are the front doors' business: they replace single values. What can
be set stands in keys.py, and what a value must be in values.py. Knows nothing of models, servers or screens.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from squish.config import durations, file, mcp_server, model_defaults
from squish.config.keys import DEFAULT_ENDPOINT, DEFAULT_PORT, KEYS, KEYS_IN_FILE, Key
from squish.config.mcp_server import McpServer
from squish.config.model_defaults import ModelDefaults
from squish.config.values import WRONG_IN_TABLE, convert, from_variable, not_utf8, wrong_in_file
from squish.errors import ConfigError, without_credentials
from squish.text import is_utf8


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Secrets are hidden in repr.

    keep_alive: seconds an idle model stays loaded; negative is forever.
    max_queue: requests that may wait per model; max_concurrency: rows that one model decodes at the same time.
    catalog: a file with a newer catalog, or its address.
    model and theme: None leaves the choice to the screen. keys: binding ids of the screen and the keys for them.
    model_keep_alive: ids of models and their own keep_alive. draft: ids of models, and of those that guess for them.
    mcp: names of servers with tools, and how to reach them. models: ids of models, and how config.toml has them asked.
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
    short_memory: Literal["load", "refuse"] = "load"
    prompt_lookup: bool = True
    kv_bits: Literal["auto", "32", "16", "8"] = "auto"
    titles: bool = True
    keep_awake: bool = False
    otlp_endpoint: str | None = field(default=None, repr=False)  # it may hold a password
    service_name: str = "squish"
    catalog: str | None = None
    model: str | None = None
    theme: str | None = None
    keys: tuple[tuple[str, str], ...] = ()
    model_keep_alive: tuple[tuple[str, float], ...] = ()
    draft: tuple[tuple[str, str], ...] = ()
    mcp: tuple[tuple[str, McpServer], ...] = ()
    models: tuple[tuple[str, ModelDefaults], ...] = ()

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


class Origin(msgspec.Struct, frozen=True):
    """Where the value of a setting comes from. shown: for people; a secret is never shown. source: a place."""

    name: str
    shown: str
    source: str


class Resolved(msgspec.Struct, frozen=True):
    """given: where each setting comes from. errors: of the file, where it has any nothing of it counts, and of
    variables, which then set nothing."""

    settings: Settings
    given: tuple[Origin, ...]
    errors: tuple[ConfigError, ...]

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Also of what was set on the screen, which no other command has to read at its start."""
        return (*self.given, *_of_models(model_defaults.remembered(self.settings.home), {}))


def resolve(environment: Mapping[str, str] | None = None) -> Resolved:
    """Every setting, where it comes from, and everything that is wrong with the file and the variables."""
    env = os.environ if environment is None else environment
    home = Path(env.get("HOME") or Path.home()) / ".squish"
    path = home / "config.toml"
    read = file.read(path, KEYS_IN_FILE, WRONG_IN_TABLE, wrong_in_file)
    errors = [problem.to_error(path) for problem in read.problems]
    if not is_utf8(str(home)):
        errors.append(not_utf8("HOME"))
    values: dict[str, object] = {"home": home, "cache_dir": home / "models"}
    origins = []
    for key in KEYS:
        source = "default"
        if key.name in read.values:
            values[key.field] = convert(key, read.values[key.name])
            source = f"{path}, line {read.lines.get(key.name, '?')}"
        if text := env.get(key.variable, "").strip():
            try:
                values[key.field] = from_variable(key, text)
                source = key.variable
            except ConfigError as error:
                errors.append(error)
        origins.append(Origin(key.name, _show(key, values), source))
    if is_utf8(str(home)) and not is_utf8(str(values["cache_dir"])):
        errors.append(not_utf8("SQUISH_CACHE_DIR"))
    values["keys"] = tuple((name, str(keys)) for name, keys in read.tables.get("keys", {}).items())
    kept = read.tables.get("model_keep_alive", {})
    values["model_keep_alive"] = tuple((name, durations.seconds(str(time))) for name, time in kept.items())
    values["draft"] = tuple((name, str(draft)) for name, draft in read.tables.get("draft", {}).items())
    servers = mcp_server.read_all(read.tables.get("mcp", {}))
    values["mcp"] = tuple(servers.items())
    asked = model_defaults.read_all(read.tables.get(model_defaults.TABLE, {}), str(path))
    values["models"] = tuple(asked.items())
    origins += _of_models(asked, read.lines)
    for table, entries in read.tables.items():
        if table == model_defaults.TABLE:
            continue
        for name, value in entries.items():
            source = f"{path}, line {read.lines.get(f'{table}.{name}', '?')}"
            shown = servers[name].address if table == "mcp" else str(value)  # without its environment and headers
            origins.append(Origin(f"{table}.{name}", shown, source))
    return Resolved(Settings(**values), tuple(origins), tuple(errors))  # type: ignore[arg-type]


def _of_models(asked: Mapping[str, ModelDefaults], lines: Mapping[str, int]) -> list[Origin]:
    """How single models are asked. lines: of a file whose lines are known."""
    found = []
    for model, each in asked.items():
        for key, value in each.values.items():
            name = f"{model_defaults.TABLE}.{model}.{key}"
            line = f", line {lines.get(name, '?')}" if lines else ""
            shown = " ".join(str(list(value) if isinstance(value, tuple) else value).split())
            found.append(Origin(name, shown, f"{each.source}{line}"))
    return found


def _show(key: Key, values: Mapping[str, object]) -> str:
    if key.field not in values:
        return key.shown_default
    if key.kind == "secret":
        return "set (hidden)" if values[key.field] else "none"
    value = values[key.field]
    if key.kind == "address":
        return without_credentials(str(value))
    return str(int(value)) if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
