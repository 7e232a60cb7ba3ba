"""state.toml: what the program remembers by itself, a table for each part of it. config.toml is the user's.

A file that cannot be read is as good as none: it is only memory. It knows no meaning of what it keeps.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import tomli_w

from squish.errors import StoreError
from squish.files import NoLocks, lock, read_regular, write_whole

_LARGEST = 16 << 20  # bytes


def table(home: Path, name: str) -> dict[str, object]:
    """One table of the file; empty where there is none."""
    found = _read(home / "state.toml").get(name)
    return found if isinstance(found, dict) else {}


def keep(home: Path, name: str, values: Mapping[str, object]) -> None:
    """Put values into a table; whatever else is in the file stays. Raises StoreError."""
    _change(home, name, lambda before: before | dict(values))


def forget(home: Path, name: str, keys: Iterable[str]) -> None:
    """Take values out of a table. Raises StoreError."""
    gone = set(keys)
    _change(home, name, lambda before: {key: value for key, value in before.items() if key not in gone})


def _change(home: Path, name: str, change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    path = home / "state.toml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / "state.lock").open("w") as opened:
            with suppress(NoLocks):  # then the last writer wins
                lock(opened.fileno())
            document = _read(path) | {name: change(table(home, name))}
            write_whole(path, tomli_w.dumps(document))
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from error


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(read_regular(path, _LARGEST, follow=True).decode())
    except (OSError, ValueError, RecursionError):
        return {}
