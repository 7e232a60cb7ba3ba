"""What `squish bench` measured, kept in ~/.squish/state.toml, so that lists and screens can show real speeds.

It does not know how anything is measured.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from squish.config import state


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
    found = {}
    for id, values in state.table(home, "speed").items():
        try:
            found[id] = msgspec.convert({"ttft": None} | values, Speed)  # type: ignore[operator]
        except (msgspec.ValidationError, TypeError):
            continue
    return found


def remember(home: Path, id: str, speed: Speed) -> None:
    """Keep a model's speed in place of the last one. Raises StoreError."""
    values = msgspec.to_builtins(speed, builtin_types=(datetime,))
    state.keep(home, "speed", {id: {key: value for key, value in values.items() if value is not None}})
