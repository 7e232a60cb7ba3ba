"""Files that several models have in common, stored once: hard links between them, found by size and hash.

A file that was just hashed takes the place of equal ones in other models, never the other way round: theirs may have
been damaged since. Each is replaced by one rename, under the locks of both models; what is busy is left as it is.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from squish.errors import CorruptModel, ModelInUse, ModelNotFound, StoreError
from squish.files import make_same
from squish.models.layout import Layout
from squish.models.manifest import Installed, read_manifest

SMALLEST = 4096  # bytes, a block of most disks: sharing less saves nothing


class Shared(msgspec.Struct, frozen=True):
    """What a model has in common with others on disk: bytes of it, and their ids, sorted."""

    bytes: int
    others: tuple[str, ...]


def share(layout: Layout, source: Installed, others: Sequence[Installed]) -> int:
    """Let other models have the files of source that are equal to theirs; the bytes that this frees.

    source: each of its files has the hash that its manifest says. Models that are links, or on another file system,
    keep their own.
    """
    return sum(_share_with(layout, source, other, pairs) for other in others if (pairs := _pairs(source, other)))


def apart(source: Installed, others: Sequence[Installed]) -> tuple[Installed, ...]:
    """The models that have files of source as files of their own."""
    return tuple(other for other in others if _pairs(source, other))


def shared(models: Sequence[Installed]) -> dict[str, Shared]:
    """What each model shares with others of the store, by id; models that share nothing are left out."""
    owners: dict[tuple[int, int], set[str]] = {}
    sizes: dict[str, dict[tuple[int, int], int]] = {}
    for model in models:
        inodes = sizes.setdefault(model.manifest.id, {})
        for file in model.manifest.files:
            with suppress(OSError):
                found = (model.path / file.path).stat()
                key = found.st_dev, found.st_ino
                owners.setdefault(key, set()).add(model.manifest.id)
                inodes[key] = found.st_size
    result = {}
    for id, inodes in sizes.items():
        common = {key: size for key, size in inodes.items() if len(owners[key]) > 1}
        if common:
            others = {other for key in common for other in owners[key]} - {id}
            result[id] = Shared(sum(common.values()), tuple(sorted(others)))
    return result


def on_disk(models: Sequence[Installed]) -> int:
    """Bytes that the files of models take together, each counted once."""
    found: dict[tuple[int, int], int] = {}
    for model in models:
        for file in model.manifest.files:
            with suppress(OSError):
                each = (model.path / file.path).stat()
                found[each.st_dev, each.st_ino] = each.st_size
    return sum(found.values())


def bytes_freed(*paths: Path) -> int:
    """Bytes that deleting directories together frees: nothing of links, nor of files with a name elsewhere."""
    names: Counter[tuple[int, int]] = Counter()
    files: dict[tuple[int, int], os.stat_result] = {}
    for path in paths:
        for each in path.rglob("*") if not path.is_symlink() else ():
            with suppress(FileNotFoundError):  # another process finishes it while we look
                found = each.lstat()
                if stat.S_ISREG(found.st_mode):
                    names[found.st_dev, found.st_ino] += 1
                    files[found.st_dev, found.st_ino] = found
    return sum(found.st_size for key, found in files.items() if found.st_nlink <= names[key])


def _pairs(source: Installed, other: Installed) -> list[tuple[Path, Path]]:
    """Files of both models with the same content, that are not one file. Models that are links have none."""
    if other.path == source.path or other.path.is_symlink() or source.path.is_symlink():
        return []
    by_content = {(file.sha256, file.size): file.path for file in source.manifest.files if file.size >= SMALLEST}
    pairs = [
        (source.path / by_content[key], other.path / each.path)
        for each in other.manifest.files
        if (key := (each.sha256, each.size)) in by_content
    ]
    return [pair for pair in pairs if _are_apart(*pair)]


def _share_with(layout: Layout, source: Installed, other: Installed, pairs: Sequence[tuple[Path, Path]]) -> int:
    freed = 0
    with ExitStack() as stack:
        try:
            for each in sorted((source, other), key=lambda each: each.path.name):
                stack.enter_context(layout.locked(f"{each.path.name}.commit", each.manifest.id, wait=False))
            if (read_manifest(source.path), read_manifest(other.path)) != (source.manifest, other.manifest):
                return 0
            scratch = stack.enter_context(layout.staging(other.path.name, other.manifest.id)) / "link"
        except (ModelInUse, ModelNotFound, CorruptModel, StoreError):  # it is being replaced: another time, then
            return 0
        for mine, theirs in pairs:
            with suppress(OSError):  # another file system, or one without links
                before = theirs.lstat()
                make_same(theirs, mine, scratch)
                freed += before.st_size if before.st_nlink == 1 else 0
    return freed


def _are_apart(path: Path, other: Path) -> bool:
    """Whether both are regular files, and not one."""
    try:
        one, two = path.lstat(), other.lstat()
    except OSError:
        return False
    return stat.S_ISREG(one.st_mode) and stat.S_ISREG(two.st_mode) and not os.path.samestat(one, two)
