"""What `squish bench` measured, kept in ~/.squish/state.toml, so that lists and screens can show real speeds.

It knows the file, not how anything is measured. A file that cannot be read is as good as none: it is only memory.
"""

from __future__ import annotations

import fcntl
import os
import tomllib
from datetime import datetime
from pathlib import Path

import msgspec
import tomli_w

from squish.errors import StoreError


class Speed(msgspec.Struct, frozen=True):
    """One model on this machine, as medians.


    decode_tps: tokens per second of one stream. ttft: seconds to the first token of a prompt of 512 tokens that no
    cache knew, None where it was not measured. version: of Squish.
    """

    decode_tps: float
    ttft: float | None
    measured_at: datetime
    version: str


def speeds(home: Path) -> dict[str, Speed]:
    """The last measured speed of each model, by its id."""
    table = _read(home / "state.toml").get("speed")
    found = {}
    for id, values in table.items() if isinstance(table, dict) else ():
        try:
            found[id] = msgspec.convert({"ttft": None} | values, Speed)
        except (msgspec.ValidationError, TypeError):
            continue
    return found


def remember(home: Path, id: str, speed: Speed) -> None:
    """Keep a model's speed in place of the last one; whatever else is in the file stays. Raises StoreError."""
    path = home / "state.toml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / "state.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            document = _read(path)
            values = msgspec.to_builtins(speed, builtin_types=(datetime,))
            table = document.get("speed")
            rest = table if isinstance(table, dict) else {}
            document["speed"] = rest | {id: {key: value for key, value in values.items() if value is not None}}
            scratch = path.with_name(f"state.{os.getpid()}.tmp")
            scratch.write_text(tomli_w.dumps(document), encoding="utf-8")
            scratch.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from error


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
