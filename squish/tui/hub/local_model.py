"""A model on this machine that the search names by its path: `./model.gguf`, or a directory of safetensors.

Knows no widget.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from squish.errors import SquishError
from squish.hub.rows import Kind
from squish.models.manifest import Manifest
from squish.names import LocalPath
from squish.pull.repository import gguf_parts
from squish.pull.sources import is_gguf

if TYPE_CHECKING:
    from squish.hub.search import Found
    from squish.pull.neighbors import Neighbor

_WEIGHTS = (".safetensors", ".gguf")
_ABOUT = "on this machine"


def at(ref: LocalPath) -> list[Found]:
    """The model at a path, by the name that a pull takes; nothing where there is none that could be imported."""
    from squish.hub.search import Found  # with a client of the Hub, which the first picture does without

    try:
        path = ref.path.expanduser()
        size = _bytes_of_weights(path)
    except (OSError, RuntimeError, ValueError, SquishError):  # no such user, or nothing that is a path
        return []
    kind: Kind = "gguf" if path.is_file() else "safetensors"
    return [Found(str(ref), _ABOUT, "", kind, 0, None, size, 0, None)] if size else []


def is_local(find: Found) -> bool:
    return find.repo == _ABOUT


def of_another_program(ref: LocalPath) -> Neighbor | None:
    """The model at a path as `squish import` knows it; None where it is not one of another program."""
    from squish.pull import neighbors

    try:
        return neighbors.at(ref.path.expanduser().absolute(), os.environ, Path.home())
    except (OSError, RuntimeError, ValueError):
        return None


def installed_as(ref: LocalPath, installed: Iterable[Manifest], neighbor: Neighbor | None = None) -> str:
    """The id that the model at a path is installed under; empty where it is not, or has changed since. neighbor: it as
    another program's.
    """
    installed = tuple(installed)
    if neighbor and any(map(neighbor.is_installed_as, installed)):
        return neighbor.id
    try:
        path = ref.path.expanduser().absolute()
        source, changed = f"file:{gguf_parts(path)[0] if path.is_file() else path}", path.stat().st_mtime
    except (OSError, RuntimeError, ValueError):
        return ""
    return next((each.id for each in installed if _is_of(each, source, changed)), "")


def _is_of(manifest: Manifest, source: str, changed: float) -> bool:
    return manifest.source == source and changed <= manifest.installed_at.timestamp()


def _bytes_of_weights(path: Path) -> int:
    if path.is_dir():
        return sum(each.stat().st_size for each in path.iterdir() if each.suffix.lower() in _WEIGHTS and each.is_file())
    return path.stat().st_size if path.is_file() and is_gguf(path) else 0
