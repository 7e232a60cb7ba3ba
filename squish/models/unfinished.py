"""What was cut off or can be tidied up: downloads, moves, files that are stored twice.

It reads what the store keeps under .partial, and knows neither the Hub nor what the bytes mean.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import msgspec

from squish.errors import CorruptModel, InvalidName, ModelInUse, ModelNotFound, StoreError
from squish.format import model_directory
from squish.models import elsewhere, sharing
from squish.models.sharing import bytes_freed
from squish.models.store import Store, directory_name


class Unfinished(msgspec.Struct, frozen=True):
    """A model that is not complete. bytes: on disk so far; busy: a process is working on it just now."""

    id: str
    bytes: int
    busy: bool


def find(store: Store) -> tuple[Unfinished, ...]:
    """Every download that can be taken up again, sorted by id. Raises StoreError."""
    found = []
    for path in store.layout.downloads():
        id = model_id(path.name)
        if id is not None and (size := _tree_size(path)):
            found.append(Unfinished(id, size, _is_busy(store, id)))
    return tuple(sorted(found, key=lambda each: each.id))


def discard(store: Store, id: str) -> int:
    """Delete what was downloaded of a model so far; the bytes freed. An installed model of that id stays.

    Raises ModelInUse while a process downloads it, StoreError.
    """
    path = store.layout.partial / directory_name(id)
    with store.lock(id, wait=False):
        freed = _tree_size(path)
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StoreError(f"{path} cannot be deleted: {error.strerror or error}.") from error
    return freed


def prune(store: Store) -> tuple[tuple[str, int], ...]:
    """Delete every download that is not complete and not running now; their names and the bytes freed."""
    freed = []
    for path in store.layout.downloads():
        try:
            with store.layout.locked(f"{path.name}.pull", path.name, wait=False):
                size = bytes_freed(path)
                store.layout.discard(path)
        except ModelInUse:
            continue
        freed.append((model_id(path.name) or path.name, size))
    for name in elsewhere.unsettled(store.layout):
        with (
            suppress(ModelInUse),
            store.layout.locked(f"{name}.pull", name, wait=False),
            store.layout.locked(f"{name}.commit", name, wait=True),
        ):
            elsewhere.settle(store.layout, name)
    store.layout.sweep()
    return tuple(freed)


def share(store: Store) -> int:
    """Store files that installed models have in common once, whoever installed them; the bytes that this frees.

    Each is read first: what is damaged does not take the place of another. Raises StoreError.
    """
    models, freed = store.installed(), 0
    for number, model in enumerate(models):
        if twins := sharing.apart(model, models[number + 1 :]):
            try:
                store.verify(model.manifest.id)
            except (CorruptModel, ModelNotFound):
                continue
            freed += sharing.share(store.layout, model, twins)
    return freed


def model_id(directory: str) -> str | None:
    """The id that a directory of the store stands for, or None: the inverse of `directory_name`."""
    id = model_directory.id_of(directory)
    try:
        return id if directory_name(id) == directory else None
    except InvalidName:
        return None


def _is_busy(store: Store, id: str) -> bool:
    try:
        with store.lock(id, wait=False):
            return False
    except ModelInUse:
        return True


def _tree_size(path: Path) -> int:
    sizes = 0
    for each in path.rglob("*"):
        try:
            found = each.stat()
            sizes += min(found.st_size, found.st_blocks * 512) if each.is_file() else 0  # a hole takes no room
        except FileNotFoundError:  # another process finishes it while we look
            continue
    return sizes
