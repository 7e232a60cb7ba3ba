"""A model that arrives from another machine: its files under .partial, each checked by its hash, then one rename.

What arrived before a cut stays there and is gone on with. A model of the same id that is here is never touched.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event

from squish.cluster.messages import Chunk, ModelThere
from squish.cluster.verified import first_changed
from squish.download.disk import hash_file, in_thread, require_space
from squish.errors import CorruptModel, EngineError, InvalidInput, ModelNotFound
from squish.models.manifest import Installed, Manifest, StoredFile, directory_name
from squish.models.store import Store

_FOLDER = "copied"


async def look(
    store: Store, id: str, files: tuple[StoredFile, ...], memory: Path, seen: Callable[[int], None]
) -> ModelThere:
    """Whether a model is installed with exactly these files. seen: as of first_changed. Raises StoreError."""
    try:
        installed = store.find(id)
    except ModelNotFound:
        return ModelThere("absent", partial=_partial(store, id))
    except CorruptModel:
        return ModelThere("other")
    if _contents(installed.manifest.files) != _contents(files):
        return ModelThere("other")
    changed = await in_thread(first_changed, installed, files, memory, seen)
    return ModelThere("changed", changed) if changed is not None else ModelThere("same")


class Receiving:
    """One model on its way. `close` gives up; what has arrived stays for the next attempt."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        """Raises ModelInUse while it is pulled or removed, InvalidInput where it is installed, StoreError."""
        self._store = store
        self._manifest = replace(manifest, linked=None)  # they are files of its own here
        self._held = ExitStack()
        self._held.enter_context(store.lock(manifest.id, wait=False))
        try:
            self._begin()
        except BaseException:
            self._held.close()
            raise

    def _begin(self) -> None:
        id = self._manifest.id
        if (self._store.cache_dir / directory_name(id)).exists():
            problem = f"{id} is installed here, with other files than on the machine that it was to be copied from."
            raise InvalidInput(problem, hint=f"To have it replaced: squish rm {id}", param="model")
        self._folder = self._store.partial(id) / _FOLDER
        self._folder.mkdir(exist_ok=True)
        wanted = {file.path: file.size for file in self._manifest.files}
        for path in [each for each in self._folder.rglob("*") if not each.is_dir() or each.is_symlink()]:
            name = path.relative_to(self._folder).as_posix()
            if path.is_symlink() or name not in wanted or path.stat().st_size > wanted[name]:
                path.unlink()  # of another version of this model
        require_space(self._folder, sum(wanted.values()) - sum(self.sizes()))

    def sizes(self) -> tuple[int, ...]:
        """Bytes of each file that are here."""
        paths = [self._folder / file.path for file in self._manifest.files]
        return tuple(path.stat().st_size if path.is_file() else 0 for path in paths)

    def write(self, chunk: Chunk) -> int:
        """Append to a file; the bytes written. Raises EngineError for what does not belong there, OSError."""
        file = self._file(chunk.file)
        path = self._folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as target:
            if target.tell() != chunk.offset or chunk.offset + len(chunk.data) > file.size:
                raise EngineError(f"{file.path} was sent with a gap, or longer than it is.")
            target.write(chunk.data)
        return len(chunk.data)

    async def end(self, number: int) -> bool:
        """Whether a file is whole; one that is not is deleted."""
        file = self._file(number)
        path = self._folder / file.path
        if file.size == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        there = path.is_file() and path.stat().st_size == file.size
        if there and await in_thread(hash_file, path) == file.sha256:
            return True
        path.unlink(missing_ok=True)
        return False

    async def install(self) -> Installed:
        """Make it a model. Raises StoreError, EngineError where a file is missing."""
        if self.sizes() != tuple(file.size for file in self._manifest.files):
            raise EngineError(f"{self._manifest.id} was not copied completely.")

        def commit(stop: Event) -> Installed:  # a moment's work: it is not stopped half way, but waited for
            return self._store.commit(self._folder, self._manifest)

        installed = await in_thread(commit)
        with suppress(OSError):
            self._folder.parent.rmdir()
        self.close()
        return installed

    def close(self) -> None:
        self._held.close()

    def _file(self, number: int) -> StoredFile:
        if not 0 <= number < len(self._manifest.files):
            raise EngineError(f"The model has no file number {number}.")
        return self._manifest.files[number]


def _partial(store: Store, id: str) -> int:
    folder = store.layout.partial / directory_name(id) / _FOLDER
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) if folder.is_dir() else 0


def _contents(files: tuple[StoredFile, ...]) -> set[tuple[str, int, str]]:
    return {(file.path, file.size, file.sha256) for file in files}
