"""sqlite's files that are there already: whether they can be changed, and how they are opened to be read."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote


def can_write(path: Path) -> bool:
    """Whether the database can be changed: sqlite writes files beside it."""
    return not path.exists() or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def open_to_read(path: Path, timeout: float) -> sqlite3.Connection:
    """Open a database that is there. timeout: seconds to wait for who holds it. Raises sqlite3.Error.

    Where it can be written, what a killed writer left half done is undone first: else it could not be read.
    """
    mode = "rw" if can_write(path) else "ro"
    return sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=timeout)
