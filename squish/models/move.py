"""Moving a model to another directory, as on another disk, or back into the store.

The files are copied beside their place, checked against their hashes, flushed, and appear by one rename; another one
makes the store's link lead there; only then the old directory goes. Whenever that ends, the model is whole in the old
place or the new one, and the same move goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from squish import figures, files
from squish.errors import CorruptModel, InvalidInput, ModelInUse, SquishError, StoreError
from squish.models import elsewhere
from squish.models.layout import is_held, store_errors
from squish.models.manifest import MANIFEST, Installed, StoredFile, read_manifest, write_manifest
from squish.models.sharing import SMALLEST
from squish.models.store import Store
from squish.system.host import HOST

_CHUNK = 4 << 20
_RESERVE = 16 << 20  # bytes that stay free on the disk

Report = Callable[[int, int], None]


def move(store: Store, name: str, directory: Path, report: Report, *, force: bool = False) -> Installed:
    """Move a model into a directory that is there. report: bytes that are done, and all.

    Raises ModelNotFound, ModelInUse, InvalidInput for a directory that cannot be used, CorruptModel where a file is
    not what was installed, StoreError.
    """
    found = store.find(name)
    root = _require_directory(store, directory)
    id, own = found.manifest.id, found.path.name
    with store.lock(id, wait=False), store_errors(root):
        found = store.find(id)
        if found.path.is_symlink() and elsewhere.directory(store.layout, own) is None:
            problem = f"{id} is a link to {found.path.resolve()}, which does not belong to Squish."
            raise InvalidInput(problem, hint="Move that directory yourself, and link it again.", param="model")
        if not force and is_held(found.path):
            hint = f"Close it, or unload the model there. To move it all the same: squish move --force {id} {directory}"
            raise ModelInUse(f"{id} is in use by another running Squish.", hint=hint, param="model")
        place = root / own
        if found.path.resolve() != place:
            _require_free(store, place)
            _move(store, found, root, report)
        with store.layout.locked(f"{own}.commit", id, wait=True):
            elsewhere.settle(store.layout, own)
    return store.find(id)


def _require_directory(store: Store, directory: Path) -> Path:
    """The directory with its links resolved. Raises InvalidInput, StoreError."""
    root = directory.expanduser().absolute().resolve()
    if not root.is_dir():
        problem = f"{directory} is not a directory." if root.exists() else f"{directory} does not exist."
        raise InvalidInput(problem, hint=f"Make it first: mkdir -p {directory}", param="directory")
    own = store.cache_dir.resolve()
    if root != own and root.is_relative_to(own):
        raise InvalidInput(f"{directory} lies inside the store.", hint="Name one outside of it.", param="directory")
    if not os.access(root, os.W_OK | os.X_OK):
        raise StoreError(f"{directory} cannot be written.", hint="Name one that can, or change its permissions.")
    return root


def _require_free(store: Store, place: Path) -> None:
    """Raises InvalidInput where something that is not ours has the place."""
    taken = place.exists() and not elsewhere.may_be_taken(store.layout, place)
    if taken and place.parent != store.cache_dir.resolve():
        raise InvalidInput(
            f"{place} is there already, and does not belong to this store.",
            hint="Name another directory, or move it away.",
            param="directory",
        )


def _move(store: Store, found: Installed, root: Path, report: Report) -> None:
    layout, own, id = store.layout, found.path.name, found.manifest.id
    back = root == store.cache_dir.resolve()
    place, staging = root / own, root / f".squish-{own}"
    source = found.path.resolve()
    concerned = [staging] if back else [staging, place]
    elsewhere.remember(layout, own, *concerned, *([source] if found.path.is_symlink() else []))
    if not back and place.exists():  # of a move that was cut off before the link led there
        place.rename(staging) if not staging.exists() else shutil.rmtree(place)
    staging.mkdir(exist_ok=True)
    elsewhere.mark(layout, staging)
    _copy(found, staging, root, report)
    if not back:
        staging.rename(place)
        files.sync_directory(root)
    with layout.locked(f"{own}.commit", id, wait=True):
        if read_manifest(found.path) != found.manifest:
            raise ModelInUse(f"{id} was replaced while it moved.", hint="Move it again.", param="model")
        if back:
            layout.swap(staging, own, id)
            (store.cache_dir / own / elsewhere.MARK).unlink(missing_ok=True)
            return
        link = layout.root / f".squish-{own}"
        link.unlink(missing_ok=True)
        link.symlink_to(place)
        layout.swap(link, own, id)


def _copy(found: Installed, staging: Path, root: Path, report: Report) -> None:
    """Copy every file, or link one that another model in the directory has, and check it. Raises what `move` raises."""
    wanted = found.manifest.files
    there = sum((staging / file.path).stat().st_size for file in wanted if (staging / file.path).is_file())
    needed, free = found.manifest.size - there + _RESERVE, HOST.free_space(root)
    if needed > free:
        problem = f"{root} has {figures.size(free)} free; {found.manifest.id} needs {figures.size(needed)}."
        raise StoreError(problem, hint="Free some space there, or name another directory.")
    twins = _files_in(root, found.manifest.id)
    done, total = 0, found.manifest.size
    for file in wanted:
        target = staging / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() and (twin := twins.get((file.sha256, file.size))) is not None:
            with suppress(OSError):
                target.hardlink_to(twin)
        _bring(found.path / file.path, target, file, partial(_report_from, report, done, total))
        done += file.size
    known = {MANIFEST, elsewhere.MARK, *(file.path for file in wanted)}
    for path in staging.rglob("*"):
        if path.is_file() and path.relative_to(staging).as_posix() not in known:
            path.unlink()
    for each in {staging, *((staging / file.path).parent for file in wanted)}:
        files.sync_directory(each)
    write_manifest(staging, replace(found.manifest, linked=None))


def _report_from(report: Report, before: int, total: int, bytes: int) -> None:
    report(before + bytes, total)


def _files_in(root: Path, id: str) -> dict[tuple[str, int], Path]:
    """The files of other models in a directory that are worth sharing, by hash and size."""
    found = {}
    for manifest in root.glob(f"*/{MANIFEST}"):
        with suppress(SquishError, OSError):
            model = read_manifest(manifest.parent)
            if model.id != id and not manifest.parent.is_symlink():
                for file in model.files:
                    if file.size >= SMALLEST:
                        found[file.sha256, file.size] = manifest.parent / file.path
    return found


def _bring(source: Path, target: Path, file: StoredFile, report: Callable[[int], None]) -> None:
    """Make target what source is, going on where an earlier try stopped. Raises CorruptModel, OSError."""
    for _ in range(2):  # what an earlier try left may be wrong, after a power cut; then it starts over
        if _copied_digest(source, target, file, report) == file.sha256:
            return
        target.unlink()
    raise CorruptModel(
        f"{source} is not what was installed.", hint="`squish verify` says what is damaged.", param="model"
    )


def _copied_digest(source: Path, target: Path, file: StoredFile, report: Callable[[int], None]) -> str:
    """Copy what target lacks; the SHA-256 of the whole target as it was read and written."""
    digest, done = hashlib.sha256(), 0
    with target.open("ab+") as there:
        there.seek(0)
        if os.fstat(there.fileno()).st_size > file.size:
            return ""
        while data := there.read(_CHUNK):
            digest.update(data)
            report(done := done + len(data))
        if done < file.size:
            with source.open("rb") as here:
                here.seek(done)
                while data := here.read(_CHUNK):
                    there.write(data)
                    digest.update(data)
                    report(done := done + len(data))
        there.flush()
        files.flush(there.fileno())
    return digest.hexdigest()
