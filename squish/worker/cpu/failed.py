"""Owns what is remembered of a compile that failed, so that not every worker tries it again. It knows no sources.

The account is kept beside where the compiled file would be, whose name says what it is compiled from. In it stands
which compiler failed, so that an updated one, or another one, is tried. `squish doctor` forgets all and tries again.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from squish.files import write_whole

TRIED_AGAIN = "`squish doctor` tries again"
_SUFFIX = ".failed"


def reason(built: Path, compiler: str) -> str | None:
    """Why this compiler could not compile what belongs here; None where it has not been tried."""
    try:
        known = json.loads(_account(built).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    said = known.get(_identity(compiler)) if isinstance(known, dict) else None
    return said if isinstance(said, str) else None


def remember(built: Path, compiler: str, reason: str) -> None:
    """Nothing where that cannot be written: then it is tried again."""
    with contextlib.suppress(OSError):
        write_whole(_account(built), json.dumps({_identity(compiler): reason}), durable=False)


def forget(folder: Path) -> None:
    """Whatever failed is tried again."""
    for path in folder.glob(f"*{_SUFFIX}"):
        path.unlink(missing_ok=True)


def _account(built: Path) -> Path:
    return built.with_name(built.name + _SUFFIX)


def _identity(compiler: str) -> str:
    """It changes when the compiler is updated."""
    path = Path(compiler).resolve()
    here = path.stat()
    return f"{path} {here.st_size} {here.st_mtime_ns}"
