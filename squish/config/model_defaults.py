"""Default parameters per model: `[models."NAME"]` in config.toml, and what the program remembers.

It knows which parameters there are and what values they may have, not what they do. config.toml takes precedence over
what is remembered, which the user set on the screen.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from squish.config import state

if TYPE_CHECKING:
    from squish.config.settings import Settings

TABLE = "models"
REMEMBERED = "model_defaults"
"""The table of state.toml."""

PRESET = "preset"
_NUMBERS: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 10),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_WHOLE: Mapping[str, tuple[int, int]] = {
    "top_k": (0, 2**31 - 1),
    "max_tokens": (1, 2**31 - 1),
    "context": (2, 2**31 - 1),
    "seed": (-(2**63), 2**64 - 1),
}
_TEXTS = (PRESET, "system", "response_format")
_KV_BITS = (32, 16, 8)
NAMES = (PRESET, *_NUMBERS, *_WHOLE, "kv_bits", "stop", "thinking", "system", "response_format")
"""Keys of a model's table: a preset, and parameters that go before it."""

MAX_STOPS = 64


class ModelDefaults(msgspec.Struct, frozen=True):
    """What one place says of a model. values: by NAMES, each of the right kind. source: the place, for people."""

    values: Mapping[str, Any]
    source: str


def wrong(model: str, table: object) -> str | None:
    """What the table of a model must be, where it is not."""
    if not isinstance(table, dict):
        return f'must be a table: [{TABLE}."{model}"] and its keys below'
    return next((must for name, value in table.items() if (must := _wrong_value(name, value))), None)


def _wrong_value(name: str, value: object) -> str | None:
    if name not in NAMES:
        near = difflib.get_close_matches(name.lower().replace("-", "_"), NAMES, 1, 0.6)
        more = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
        return f"has no parameter {name} ({more})"
    if name in _NUMBERS:
        low, high = _NUMBERS[name]
        right = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        return None if right else f"needs a number from {low:g} to {high:g} for {name}"
    if name in _WHOLE:
        least, most = _WHOLE[name]
        right = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        return None if right else f"needs a whole number of at least {least} for {name}"
    if name == "kv_bits":
        return None if type(value) is int and value in _KV_BITS else "needs 32, 16 or 8 for kv_bits"
    if name == "thinking":
        return None if isinstance(value, bool) else "needs true or false for thinking"
    if name == "stop":
        right = isinstance(value, list) and len(value) <= MAX_STOPS and all(isinstance(e, str) and e for e in value)
        return None if right else f"needs a list of at most {MAX_STOPS} texts that are not empty for stop"
    return None if isinstance(value, str) else f"needs a text for {name}"


def read_all(tables: Mapping[str, object], source: str) -> dict[str, ModelDefaults]:
    """The models of tables that are not wrong, by their names; others are left out."""
    return {
        name: ModelDefaults({key: _as_kept(key, each) for key, each in table.items()}, source)
        for name, table in tables.items()
        if isinstance(table, dict) and wrong(name, table) is None
    }


def _as_kept(name: str, value: Any) -> Any:
    return tuple(value) if name == "stop" else float(value) if name in _NUMBERS else value


def remembered(home: Path) -> dict[str, ModelDefaults]:
    """What was set on the screen, by the models' names."""
    return {
        name: each
        for name, each in read_all(state.table(home, REMEMBERED), f"{home / 'state.toml'}").items()
        if each.values
    }


def remember(home: Path, model: str, values: Mapping[str, Any]) -> None:
    """Keep these for a model in place of what was kept; none: forget them. Raises StoreError."""
    kept = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    state.keep(home, REMEMBERED, {model: kept})


def kv_bits_of(settings: Settings, model: str) -> int | None:
    """Those of the KV cache that a model is loaded with: its own of config.toml or of the screen, else those of all
    models. None: as is best."""
    return kv_bits_by_name(settings)(model)


def kv_bits_by_name(settings: Settings) -> Callable[[str], int | None]:
    """The same of many models, as it is set now: what is set is read once."""
    layers = dict(settings.models), remembered(settings.home)
    of_all = None if settings.kv_bits == "auto" else int(settings.kv_bits)

    def bits(model: str) -> int | None:
        own = (layer[model].values.get("kv_bits") for layer in layers if model in layer)
        return next((int(each) for each in own if each), of_all)

    return bits
