"""The prefix cache's second tier: KV caches as safetensors files that survive the worker.

A file says in its header which model it belongs to and which tokens it holds, and in its name what its content hashes
to. Where a cache can be cut at any token, a file may go on from another one and holds only what comes after: a
conversation that grows writes each of its tokens once. A file is there whole or not at all, also after a power cut.
What is cut off, damaged, foreign or goes on from nothing is removed and never used, and damage is said once; a full
disk only means that nothing more is kept. Files hold what was said in prompts, so nobody but the user may read them.

`write` and what it calls may run on any thread; everything else belongs to one.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import time
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import load_prompt_cache

from squish.errors import CorruptModel
from squish.files import NoLocks, flush, lock, sync_directory
from squish.format import safetensors
from squish.worker.cache.cache_file import joined

_DIGITS = 32
_APART = 1_000_000  # nanoseconds between the times of files: some file systems do not keep single ones


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A file of the tier. name: what its tokens hash to; length: how many they are; before: what it goes on from."""

    path: Path
    name: str
    length: int
    before: Stored | None = None


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that is to be written. about: what its header has to say."""

    name: str
    length: int
    before: Stored | None
    about: dict[str, str]

    @property
    def start(self) -> int:
        """The first token that it holds."""
        return self.before.length if self.before else 0


class DiskTier:
    """folder: where the files of one model lie. key: what they must name to be this model's. budget: bytes in all.

    warn: hears of damage, the first time.
    """

    def __init__(self, folder: Path, key: str, budget: int, warn: Callable[[str], None] | None = None) -> None:
        self._folder = folder
        self._key = key
        self._budget = budget
        self._warn = warn
        self._files: dict[str, Stored] = {}
        self._most = 64  # of them, before those that are gone are forgotten
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def index(self) -> list[tuple[Stored, list[int]]]:
        """What is there and which tokens it holds, the oldest first; of files that go on from each other, the last.

        Only headers are read; files that are of no use are removed.
        """
        self._sweep()
        found: dict[Path, tuple[list[int], int]] = {}
        for path in self._by_age():
            said = self._said(path)
            if said is None:
                self._discard(path, damaged=_metadata(path) is None)
            else:
                found[path] = said
        self._files = {}
        for path in sorted(found, key=lambda path: len(found[path][0])):
            tokens, start = found[path]
            before = self._files.get(_name(tokens[:start])) if start else None
            if start and before is None:
                self._discard(path, damaged=False)
            else:
                self.keep(Stored(path, _name(tokens), len(tokens), before))
        inner = {stored.before.path for stored in self._files.values() if stored.before}
        last = {stored.path: stored for stored in self._files.values() if stored.path not in inner}
        return [(last[path], tokens) for path, (tokens, _) in found.items() if path in last]

    def keep(self, stored: Stored) -> None:
        """Take a file that was written for one that others may go on from."""
        self._files[stored.name] = stored
        if len(self._files) > self._most:
            self._files = {name: each for name, each in self._files.items() if each.path.exists()}
            self._most = 2 * len(self._files) + 64

    def longest(self, tokens: list[int]) -> Stored | None:
        """The file that holds the longest beginning of these tokens, with those before it."""
        best, hashed, at = None, hashlib.sha256(), 0
        for length in sorted({stored.length for stored in self._files.values() if stored.length <= len(tokens)}):
            hashed.update(_raw(tokens[at:length]))
            at = length
            stored = self._files.get(hashed.hexdigest()[:_DIGITS])
            if stored and all(each.path.exists() for each in _chain(stored)):
                best = stored
        return best

    def new(self, tokens: list[int], before: Stored | None = None) -> NewFile:
        """A file of what these tokens have after those of `before`."""
        key = f"{self._key} after {before.length}" if before else self._key  # an older Squish takes it for foreign
        about = {"key": key, "tokens": base64.b64encode(_raw(tokens)).decode()}
        return NewFile(_name(tokens), len(tokens), before, about)

    def read(self, stored: Stored) -> list[Any] | None:
        """The cache of all its tokens, in memory; None when it cannot be read any more."""
        parts = []
        for each in _chain(stored):
            caches = self._read(each)
            if caches is None:
                return None
            parts.append(caches)
        self._touch(stored)
        if len(parts) == 1:
            return parts[0]
        caches = []
        for layer in zip(*parts, strict=True):
            caches.append(joined(layer))
            mx.eval(caches[-1].state)
        return caches

    def _read(self, stored: Stored) -> list[Any] | None:
        try:
            if self._said(stored.path) is None or _digest(stored.path) != stored.path.stem.rpartition("-")[2]:
                raise ValueError("damaged")
            caches: list[Any] = load_prompt_cache(str(stored.path))
            mx.eval([cache.state for cache in caches])
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError):
            self._discard(stored.path, damaged=True)
            return None
        return caches

    def write(self, new: NewFile, nbytes: int, pieces: Iterable[memoryview]) -> Stored | None:
        """Keep a file; the oldest make room. None when it is larger than the budget or the disk refuses."""
        partial = self._folder / f"{new.name}.{secrets.token_hex(4)}.partial"
        try:
            chain = _chain(new.before) if new.before else []
            if nbytes + sum(each.path.stat().st_size for each in chain) > self._budget:
                return None
            path = self._folder / f"{new.name}-{_fill(partial, pieces)}.safetensors"
            for older in [each for each in self._folder.glob(f"{new.name}-*.safetensors") if each != path]:
                _remove(older)
            stored = Stored(path, new.name, new.length, new.before)
            self._touch(stored)
            self._trim()
        except OSError:
            _remove(partial)
            return None
        return stored

    def _touch(self, stored: Stored) -> None:
        """These files were used: a file counts as younger than those that go on from it, and so outlives them."""
        now = time.time_ns()
        for number, each in enumerate(reversed(_chain(stored))):
            when = now + number * _APART
            with suppress(OSError):
                os.utime(each.path, ns=(when, when))

    def _discard(self, path: Path, *, damaged: bool) -> None:
        _remove(path)
        if damaged and self._warn:
            self._warn("A saved part of the prefix cache was damaged. It was deleted; what it held is computed again.")
            self._warn = None

    def _sweep(self) -> None:
        """Remove what was being written when a process ended, and is not being written by another one."""
        for partial in self._folder.glob("*.partial"):
            with suppress(OSError), partial.open("rb") as file:
                with suppress(NoLocks):
                    lock(file.fileno(), wait=False)
                _remove(partial)

    def _trim(self) -> None:
        sizes = self._by_age()
        excess = sum(sizes.values()) - self._budget
        for path, size in sizes.items():
            if excess <= 0:
                break
            excess -= size
            _remove(path)

    def _by_age(self) -> dict[Path, int]:
        """The files, the oldest first, and their bytes; another process may remove any at any time."""
        found = []
        for path in self._folder.glob("*.safetensors"):
            with suppress(OSError):
                stat = path.stat()
                found.append((stat.st_mtime_ns, path, stat.st_size))
        return {path: size for _, path, size in sorted(found)}

    def _said(self, path: Path) -> tuple[list[int], int] | None:
        """A file's tokens, and how many are in those before it; None when it is not whole or of another model."""
        metadata = _metadata(path) or {}
        try:
            key, _, start = metadata["0.key"].partition(" after ")
            if key != self._key:
                return None
            return array("I", base64.b64decode(metadata["0.tokens"])).tolist(), int(start or 0)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def _fill(partial: Path, pieces: Iterable[memoryview]) -> str:
    """Write a file, and bring it onto the medium; what it hashes to. It is locked meanwhile. Raises OSError."""
    hashed = hashlib.sha256()
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123  a descriptor
        with suppress(NoLocks):
            lock(file.fileno())
        for piece in pieces:
            hashed.update(piece)
            file.write(piece)
        file.flush()
        flush(file.fileno())
        digest = hashed.hexdigest()[:_DIGITS]
        partial.replace(partial.with_name(f"{partial.name.partition('.')[0]}-{digest}.safetensors"))
    sync_directory(partial.parent)
    return digest


def _chain(stored: Stored) -> list[Stored]:
    """The files that hold a file's tokens, in their order."""
    found: list[Stored] = []
    each: Stored | None = stored
    while each:
        found.append(each)
        each = each.before
    return found[::-1]


def _raw(tokens: list[int]) -> bytes:
    return array("I", tokens).tobytes()


def _name(tokens: list[int]) -> str:
    return hashlib.sha256(_raw(tokens)).hexdigest()[:_DIGITS]


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
