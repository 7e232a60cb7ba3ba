"""Keeps the limit of open files that this process was started with. The front has raised it as far as it may."""

from __future__ import annotations

import resource
from typing import Any


def keep_limit() -> None:
    """Let no library change this process's limits. To be called before mlx-lm is imported.

    It asks for 2048 of 4096 as it is imported: less than there were, and an error where the hard limit is lower.
    """
    module: Any = resource
    module.setrlimit = _unchanged


def _unchanged(which: int, limits: tuple[int, int]) -> None:
    """In the place of `resource.setrlimit`."""
