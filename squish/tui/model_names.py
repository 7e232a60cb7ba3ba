"""How a model's name is written where there is little room. Pure text."""

from __future__ import annotations

import re

from squish.text import clean

_PATH = re.compile(r"(?:~?[/\\]|\.{1,2}[/\\]|[A-Za-z]:\\|(?:[^/\\]+[/\\]){2,}).*")


def short(name: str) -> str:
    """The name, safe to show; of a path, as llama-server and mlx_lm.server list one, what its last folder holds."""
    name = clean(name)
    if not _PATH.fullmatch(name):
        return name
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] or name
