"""The folder that the program was started in, which somebody may have deleted since."""

from __future__ import annotations

import os
from pathlib import Path


def working_directory() -> Path:
    """It; once it is deleted the path that it had, at which nothing is found."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        was = Path(os.environ.get("PWD", ""))
        return was if was.is_absolute() else Path(os.devnull)


def is_deleted() -> bool:
    """Whether it is: what is named relative to it can neither be found nor made."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False
