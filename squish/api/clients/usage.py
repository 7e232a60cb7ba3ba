"""usage.db: what each key has used, by day and model. Counts only: no prompt, no answer, no address."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from squish.errors import StoreError
from squish.system.sqlite_files import open_to_read

_BUSY_SECONDS = 10.0

_TABLE = """
CREATE TABLE IF NOT EXISTS usage (
    day TEXT, key TEXT, model TEXT, requests INTEGER, prompt INTEGER, cached INTEGER, completion INTEGER,
    PRIMARY KEY (day, key, model)
) WITHOUT ROWID
"""
_ADD = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
    prompt = prompt + excluded.prompt, cached = cached + excluded.cached, completion = completion + excluded.completion
"""


@dataclass(frozen=True, slots=True)
class Used:
    """What a key used of a model on one day. prompt, cached, completion: tokens; cached are a part of prompt."""

    day: str
    key: str
    model: str
    requests: int
    prompt: int
    cached: int
    completion: int


class UsageFile:
    """Sums in memory what is to be added, so that an answer waits for no disk; `flush` adds it."""

    def __init__(self, home: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = home / "usage.db"
        self._clock = clock
        self._pending: dict[tuple[str, str, str], Counter[str]] = {}

    def count(self, key: str, model: str, **amounts: int) -> None:
        """requests, prompt, cached, completion: to be added to what is there. key: its name."""
        day = datetime.fromtimestamp(self._clock()).date().isoformat()
        self._pending.setdefault((day, key, model), Counter()).update(amounts)

    def flush(self) -> None:
        """Add what was counted. May be called from a thread. Raises StoreError; then nothing is lost but time."""
        pending, self._pending = self._pending, {}
        if not pending:
            return
        rows = [
            (*where, *(sums[name] for name in ("requests", "prompt", "cached", "completion")))
            for where, sums in pending.items()
        ]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS)) as connection, connection:
                connection.execute("PRAGMA synchronous = EXTRA")  # what was added survives a power cut too
                connection.execute("PRAGMA fullfsync = ON")  # on macOS; elsewhere it changes nothing
                connection.execute(_TABLE)
                connection.executemany(_ADD, rows)
        except (sqlite3.Error, OSError) as error:
            for where, sums in pending.items():
                self._pending.setdefault(where, Counter()).update(sums)
            raise StoreError(f"{self.path} cannot be written: {error}.") from error

    def since(self, day: str) -> list[Used]:
        """Everything from a day on (2026-11-26), the oldest first. Raises StoreError."""
        if not self.path.exists():
            return []
        try:
            with closing(open_to_read(self.path, _BUSY_SECONDS)) as connection:
                if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'usage'").fetchone():
                    return []  # who made the file was killed before it made the table
                found = connection.execute("SELECT * FROM usage WHERE day >= ? ORDER BY day, key, model", (day,))
                return [Used(*row) for row in found]
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path} cannot be read: {error}.", hint="squish doctor says how to go on."
            ) from error
