"""How names of models and files are written where there is little room. Pure text."""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size

from squish.text import clean

_PATH = re.compile(r"(?:~?[/\\]|\.{1,2}[/\\]|[A-Za-z]:\\|(?:[^/\\]+[/\\]){2,}).*")


def short(name: str) -> str:
    """The name, safe to show; of a path, as llama-server and mlx_lm.server list one, what its last folder holds."""
    name = clean(name)
    if not _PATH.fullmatch(name):
        return name
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] or name


def tail(name: str, cells: int) -> str:
    """The name, safe to show; of one that is too long the end, where a file's own name is."""
    name = clean(name)
    if cell_len(name) <= cells:
        return name
    backwards = set_cell_size(name[::-1], max(cells - 1, 1))
    return f"…{backwards.rstrip()[::-1]}"
