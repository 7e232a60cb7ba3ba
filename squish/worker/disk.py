"""The prefix cache's second tier: KV caches as safetensors files that survive the worker.

A file says in its header which model it belongs to and which tokens it holds, and in its name what its content hashes
to. What is cut off, damaged or foreign is removed and never used, and damage is said once; a full disk only means that
nothing more is kept. The files hold what was said in prompts, so nobody but the user may read them.
"""

from __future__ import annotations

import base64
import hashlib
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import load_prompt_cache, save_prompt_cache

from squish.errors import CorruptModel
from squish.format import safetensors

_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of the tier and the tokens it holds."""

    path: Path
    tokens: list[int]


class DiskTier:
    """folder: where the files of one model lie. key: what they must name to be this model's. budget: bytes in all.

    warn: hears of damage, the first time.
    """

    def __init__(self, folder: Path, key: str, budget: int, warn: Callable[[str], None] | None = None) -> None:
        self._folder = folder
        self._key = key
        self._budget = budget
        self._warn = warn
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def index(self) -> list[Stored]:
        """What is there, the oldest first. Only headers are read; files that are not whole or not ours are removed."""
        found: list[Stored] = []
        for path in self._by_age():
            tokens = self._tokens(path)
            if tokens is None:
                self._discard(path, damaged=_metadata(path) is None)
            else:
                found.append(Stored(path, tokens))
        return found

    def read(self, path: Path) -> list[Any] | None:
        """The cache in a file, in memory; None when it cannot be read any more."""
        try:
            if self._tokens(path) is None or _digest(path) != path.stem.rpartition("-")[2]:
                raise ValueError("damaged")
            caches: list[Any] = load_prompt_cache(str(path))
            mx.eval([cache.state for cache in caches])
            path.touch()
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError):
            self._discard(path, damaged=True)
            return None
        return caches

    def write(self, tokens: list[int], caches: list[Any]) -> Path | None:
        """Keep a cache; the oldest files make room. None when it is larger than the budget or the disk refuses."""
        if sum(cache.nbytes for cache in caches) > self._budget:
            return None
        data = array("I", tokens).tobytes()
        name = hashlib.sha256(data).hexdigest()[:_DIGITS]
        partial = self._folder / f"{name}.{time.monotonic_ns()}.partial.safetensors"
        metadata = {"key": self._key, "tokens": base64.b64encode(data).decode()}
        try:
            save_prompt_cache(str(partial), caches, metadata)
            partial.chmod(0o600)
            if self._tokens(partial) is None:  # a full disk may cut a file off without a word
                raise OSError("the file is not whole")
            path = self._folder / f"{name}-{_digest(partial)}.safetensors"
            for older in self._folder.glob(f"{name}-*.safetensors"):
                _remove(older)
            partial.replace(path)
            self._trim()
        except (OSError, RuntimeError):
            _remove(partial)
            return None
        return path

    def _discard(self, path: Path, *, damaged: bool) -> None:
        _remove(path)
        if damaged and self._warn:
            self._warn("A saved part of the prefix cache was damaged. It was deleted; what it held is computed again.")
            self._warn = None

    def _trim(self) -> None:
        files = self._by_age()
        excess = sum(path.stat().st_size for path in files) - self._budget
        for path in files:
            if excess <= 0:
                break
            excess -= path.stat().st_size
            _remove(path)

    def _by_age(self) -> list[Path]:
        return sorted(self._folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)

    def _tokens(self, path: Path) -> list[int] | None:
        """The tokens that a file holds; None when it is not whole or names another model."""
        metadata = _metadata(path) or {}
        try:
            if metadata["0.key"] != self._key:
                return None
            return array("I", base64.b64decode(metadata["0.tokens"])).tolist()
        except (ValueError, KeyError, TypeError):
            return None


def _metadata(path: Path) -> dict[str, Any] | None:
    """What a file says of itself; None when it is not whole."""
    try:
        return safetensors.read(path, path.name)[1]
    except (OSError, CorruptModel):
        return None


def _digest(path: Path) -> str:
    """What a whole file hashes to. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:_DIGITS]


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
