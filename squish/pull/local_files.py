"""The files of a directory on this machine, as a download has those of a repository: nothing is fetched or copied.

Weights are links to the directory's own files, which are only read; small files are copies.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from squish.download.remote_file import Downloaded
from squish.errors import StoreError
from squish.hub.snapshot import HubFile, Snapshot
from squish.pull.repository import is_model_file, is_weights
from squish.pull.sources import inside


class ModelFiles(Protocol):
    """Files of a model that come into `directory` when they are asked for. Sizes in bytes, as in `Download`."""

    directory: Path
    total: int
    received: int

    @property
    def done(self) -> int: ...

    async def run(self, only: Collection[str] | None = None) -> tuple[Downloaded, ...]: ...

    async def piece(self, path: str, start: int, end: int) -> bytes: ...

    async def keep(self, path: str, beginning: bytes) -> None: ...

    def skip(self, path: str) -> None: ...


class LocalFiles:
    """Files that lie on this machine already. found: by their names, each with links followed."""

    def __init__(self, found: Mapping[str, Path], directory: Path) -> None:
        self.directory = directory / "files"
        self.total = self.done = sum(path.stat().st_size for path in found.values())
        self.received = 0
        self._found = dict(found)

    def prepare(self) -> None:
        """An empty directory, whatever an earlier run left. Raises StoreError."""
        try:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory.mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"{self.directory} cannot be written: {error.strerror or error}.") from error

    async def run(self, only: Collection[str] | None = None) -> tuple[Downloaded, ...]:
        """Bring the files, or those named, into the directory; none of them is hashed. Raises StoreError."""
        await asyncio.to_thread(self._place, [name for name in self._found if only is None or name in only])
        return ()

    async def piece(self, path: str, start: int, end: int) -> bytes:
        """Bytes of a file. Raises StoreError."""
        return await asyncio.to_thread(self._read, path, start, end)

    async def keep(self, path: str, beginning: bytes) -> None:
        """Nothing is missing here."""

    def skip(self, path: str) -> None:
        """Nothing is counted here."""

    def _place(self, names: Collection[str]) -> None:
        for name in names:
            source, target = self._found[name], self.directory / name
            try:
                target.parent.mkdir(exist_ok=True)
                target.unlink(missing_ok=True)
                if is_weights(name):
                    target.symlink_to(source)
                else:
                    shutil.copyfile(source, target)
            except OSError as error:
                raise StoreError(f"{source} cannot be read: {error.strerror or error}.") from error

    def _read(self, path: str, start: int, end: int) -> bytes:
        try:
            with self._found[path].open("rb") as stream:
                stream.seek(start)
                return stream.read(end - start)
        except OSError as error:
            raise StoreError(f"{self._found[path]} cannot be read: {error.strerror or error}.") from error


def model_files(source: Path) -> tuple[str, ...]:
    """The names of a directory's files that belong to a model, sorted: those at the top, then those of steps."""
    names = sorted(path.name for path in source.iterdir() if path.is_file())
    steps = sorted(path.relative_to(source).as_posix() for path in source.glob("[0-9]*_*/*") if path.is_file())
    return tuple(name for name in (*names, *steps) if is_model_file(name))


def snapshot(source: Path) -> Snapshot:
    """A directory as if it were a repository. Its commit changes with the size and time of any file."""
    found = {name: inside(source, name).stat() for name in model_files(source)}
    state = "".join(f"{name}\0{each.st_size}\0{each.st_mtime_ns}\n" for name, each in found.items())
    files = tuple(HubFile(name, "", each.st_size, None, None) for name, each in found.items())
    return Snapshot(str(source), hashlib.sha256(state.encode()).hexdigest(), None, files)
