"""How the store lies on the disk: its hidden directories, its locks, and how directories come and go by one rename.

    cache_dir/
        smollm2+135m/        one directory a model: manifest.toml and the files that it names
        .partial/            what is being written; survives a crash, never listed
        .old/                a model in the instant in which a newer one takes its place
        .trash/              what is being deleted
        .locks/              one lock file a model and purpose, never deleted

It knows directories and their names, not which models are in them.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from squish import files
from squish.errors import ModelInUse, StoreError

_STAGING_MARK = "~"  # in no model's directory name


class Layout:
    """The directories under root. Safe for many processes and threads at once; it keeps nothing in memory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.partial, self.old, self.trash = root / ".partial", root / ".old", root / ".trash"
        self._locks = root / ".locks"

    @contextmanager
    def locked(self, file_name: str, id: str, *, wait: bool) -> Iterator[None]:
        """Hold one of the store's locks among all processes. Raises ModelInUse where wait is False, StoreError."""
        path = self._locks / file_name
        with store_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with store_errors(path):
                try:
                    files.lock(descriptor, wait=wait)
                except BlockingIOError:
                    raise ModelInUse(
                        f"{id} is being installed or removed by another process.",
                        hint="Wait for it to end, or stop it.",
                        param="model",
                    ) from None
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read while no model is being replaced; models whose replacement was killed half way are put back first."""
        for old in self.old.iterdir() if self.old.is_dir() else ():
            with self.locked(f"{old.name}.commit", old.name, wait=True), store_errors(self.old):
                self.restore(old)
        try:
            descriptor = os.open(self._locks / "swap", os.O_RDONLY)
        except OSError:  # nothing was ever written here
            yield
            return
        try:
            with store_errors(self._locks), suppress(files.NoLocks):  # without locks nobody can be writing
                files.lock(descriptor)  # shared locks that overlap would keep a writer out forever
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def staging(self, name: str, id: str) -> Iterator[Path]:
        """An empty directory under .partial, removed at the end unless it was renamed away.

        Directories that a killed process left behind go when the next one is made.
        """
        path = self.partial / f"{name}{_STAGING_MARK}{secrets.token_hex(6)}"
        with ExitStack() as stack:
            with self.locked("staging", id, wait=True), store_errors(path):
                self.partial.mkdir(exist_ok=True)
                self._sweep()
                path.mkdir()
                descriptor = os.open(path, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                files.lock(descriptor)
            stack.callback(shutil.rmtree, path, ignore_errors=True)
            yield path

    def downloads(self) -> tuple[Path, ...]:
        """The directories of downloads that are not complete, in the order of their names."""
        with store_errors(self.partial):
            found = sorted(self.partial.iterdir()) if self.partial.is_dir() else []
        return tuple(path for path in found if path.is_dir() and _STAGING_MARK not in path.name)

    def sweep(self) -> None:
        """Remove what killed processes left behind: directories that they built models in, and half-deleted ones."""
        with store_errors(self.partial):
            with self.locked("staging", "the store", wait=True):
                self._sweep()
            self._empty_trash()

    def swap(self, staging: Path, name: str, id: str) -> Path:
        """Put a complete directory in the place of a model. To be called under the model's commit lock."""
        final, old = self.root / name, self.old / name
        self.restore(old)
        with self.locked("swap", id, wait=True):  # no reader looks between the two renames
            if present(final):
                old.parent.mkdir(exist_ok=True)
                final.rename(old)
            staging.rename(final)
        files.sync_directory(self.root)
        if present(old):
            self.discard(old)
        return final

    def restore(self, old: Path) -> None:
        """Put a set-aside model back, or away when a newer one is in its place. To be called under its commit lock."""
        if not present(old):
            return
        if present(self.root / old.name):
            self.discard(old)
        else:
            old.rename(self.root / old.name)

    def discard(self, path: Path) -> None:
        """Take a directory out of sight by one rename, then delete it and what earlier processes failed to delete.

        Of a symbolic link only the link goes.
        """
        self.trash.mkdir(exist_ok=True)
        path.rename(self.trash / secrets.token_hex(8))
        files.sync_directory(path.parent)
        self._empty_trash()

    def _empty_trash(self) -> None:
        for each in self.trash.iterdir() if self.trash.is_dir() else ():
            if each.is_symlink():
                each.unlink(missing_ok=True)
            else:
                shutil.rmtree(each, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove staging directories that no living process holds. To be called under the staging lock."""
        for path in self.partial.glob(f"*{_STAGING_MARK}*") if self.partial.is_dir() else ():
            if not is_held(path):
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """What the file system refuses becomes a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, files.NoLocks):
            hint = "Set SQUISH_CACHE_DIR to a directory on a local disk; models that are here can still be used."
        else:
            hint = "Set SQUISH_CACHE_DIR to a directory that can be written, and check the free space."
        raise StoreError(
            f"The model store cannot be used: {error.strerror or error} ({error.filename or path}).",
            hint=hint,
        ) from error


def present(path: Path) -> bool:
    """Whether a name is taken, also by a link that leads nowhere."""
    return path.is_symlink() or path.exists()


def is_held(path: Path) -> bool:
    """Whether a living process holds a directory: a worker that serves the model, or one that builds it there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        files.lock(descriptor, wait=False)
        return False
    except BlockingIOError:
        return True
    except files.NoLocks:  # there nobody can hold anything
        return False
    finally:
        os.close(descriptor)
