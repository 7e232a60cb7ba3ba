"""The model store: which models are installed, and how one comes and goes without ever being half there.

    cache_dir/
        smollm2+135m/        one directory a model: manifest.toml and the files that it names
        .partial/            what is being written; survives a crash, never listed
        .old/                a model in the instant in which a newer one takes its place
        .trash/              what is being deleted
        .locks/              one lock file a model and purpose, never deleted

A model appears by one rename of a complete directory and goes by one rename out of sight. It knows neither the Hub nor
what is inside the files.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from squish.errors import CorruptModel, InvalidInput, ModelInUse, ModelNotFound, StoreError
from squish.models import catalog
from squish.models.manifest import (
    MANIFEST,
    Installed,
    Manifest,
    Problem,
    StoredFile,
    directory_name,
    is_inside,
    read_manifest,
    sync,
    write_manifest,
)
from squish.names import LocalPath, ShortName, parse

__all__ = ["MANIFEST", "Installed", "Manifest", "Problem", "Store", "StoredFile", "directory_name", "is_inside"]


class Store:
    """The installed models under cache_dir. Safe for many processes and threads at once; it keeps nothing in memory."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir

    def list(self) -> list[Manifest]:
        """Every installed model, sorted by id. What cannot be read is skipped; see `problems`."""
        return [each.manifest for each in self.installed()]

    def installed(self) -> tuple[Installed, ...]:
        """The same with the directory of each."""
        return self._scan()[0]

    def problems(self) -> tuple[Problem, ...]:
        """Directories that look like models and are none."""
        return self._scan()[1]

    def find(self, name: str) -> Installed:
        """The installed model of a name; a catalog name without a tag means the catalog's default.

        Raises InvalidName, ModelNotFound, CorruptModel (a manifest that cannot be read), StoreError.
        """
        ref = parse(name)
        if isinstance(ref, LocalPath):
            source = f"file:{ref.path.expanduser().absolute()}"
            if found := [each for each in self._scan()[0] if each.manifest.source == source]:
                return found[0]
            raise ModelNotFound(f"{name} is not imported yet.", hint=f"Run: squish pull {name}", param="model")
        ids = [str(ref)]
        if isinstance(ref, ShortName) and (entry := catalog.lookup(ref)) is not None:
            ids.append(entry.id)
        with self._looking():
            for id in ids:
                path = self.cache_dir / directory_name(id)
                if path.is_dir():
                    return Installed(read_manifest(path), path)
        raise self._not_found(str(ref))

    def verify(self, name: str) -> None:
        """Read every file of a model again. Raises CorruptModel naming the first that is not what was installed."""
        installed = self.find(name)
        for file in installed.manifest.files:
            path = installed.path / file.path
            if not path.is_file() or path.stat().st_size != file.size or _sha256(path) != file.sha256:
                raise CorruptModel(
                    f"{file.path} of {installed.manifest.id} is missing or was changed.",
                    hint=f"Run: {installed.manifest.again}",
                    param="model",
                )
        if extra := installed.extra:
            raise CorruptModel(
                f"{extra} is in the directory of {installed.manifest.id} but was not installed with it; the model may "
                "be loaded from it.",
                hint=f"Delete {installed.path / extra}, or run: {installed.manifest.again}",
                param="model",
            )

    @contextmanager
    def lock(self, id: str, *, wait: bool = True) -> Iterator[None]:
        """Hold the right to install or remove a model, among all processes. Raises ModelInUse where wait is False."""
        with self._locked(f"{directory_name(id)}.pull", id, wait=wait):
            yield

    def partial(self, id: str) -> Path:
        """The directory in which the download of a model is kept until it is complete. To be used under `lock`."""
        path = self.cache_dir / ".partial" / directory_name(id)
        with _store_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def staging(self, id: str) -> Iterator[Path]:
        """An empty directory to build a model in, removed at the end unless `commit` has taken it.

        Directories that a killed process left behind go when the next one is made.
        """
        root = self.cache_dir / ".partial"
        path = root / f"{directory_name(id)}~{secrets.token_hex(6)}"
        with ExitStack() as stack:
            with self._locked("staging", id, wait=True), _store_errors(path):
                root.mkdir(exist_ok=True)
                _sweep_staging(root)
                path.mkdir()
                descriptor = os.open(path, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            stack.callback(shutil.rmtree, path, ignore_errors=True)
            yield path

    def commit(self, staging: Path, manifest: Manifest) -> Installed:
        """Make a directory under .partial the model of its manifest, replacing an older one of the same id.

        Every file is hashed, but for those that manifest.files names with their size: those were checked on their way.
        Readers that put a set-aside model back, and others that commit the same one, are waited for. Raises StoreError.
        """
        if self.cache_dir / ".partial" not in staging.parents:
            raise ValueError("only a directory under .partial can be committed")
        name = directory_name(manifest.id)
        final, old = self.cache_dir / name, self.cache_dir / ".old" / name
        with self._locked(f"{name}.commit", manifest.id, wait=True), _store_errors(final):
            complete = replace(manifest, files=_hashed(staging, manifest.files))
            write_manifest(staging, complete)
            self._restore(old)
            with self._locked("swap", manifest.id, wait=True):  # no reader looks between the two renames
                if final.exists():
                    old.parent.mkdir(exist_ok=True)
                    final.rename(old)
                staging.rename(final)
            sync(self.cache_dir)
            if old.exists():
                self._discard(old)
        return Installed(complete, final)

    def remove(self, name: str, *, force: bool = False) -> int:
        """Remove a model and what was downloaded of it so far; the bytes freed.

        Raises ModelNotFound, or ModelInUse while another process installs it or, without force, serves it.
        """
        id = self._id_to_remove(name)
        directory = directory_name(id)
        path, partial = self.cache_dir / directory, self.cache_dir / ".partial" / directory
        with self.lock(id, wait=False), self._locked(f"{directory}.commit", id, wait=True), _store_errors(path):
            self._restore(self.cache_dir / ".old" / directory)
            present = [each for each in (path, partial) if each.exists()]
            if not present:
                raise self._not_found(id, to_remove=True)
            if not force and path.exists() and _is_held(path):
                raise ModelInUse(
                    f"{id} is in use by another running Squish.",
                    hint=f"Close it, or unload the model there. To delete it all the same: squish rm --force {id}",
                    param="model",
                )
            freed = sum(_tree_size(each) for each in present)
            for each in present:
                self._discard(each)
        return freed

    def copy(self, name: str, new_id: str) -> Installed:
        """Install a model under a second name, sharing its files on disk where the file system can.

        Raises ModelNotFound, InvalidName, InvalidInput (the name is taken), StoreError.
        """
        source = self.find(name)
        if source.manifest.id == new_id:
            raise InvalidInput(f"{new_id} has that name already.", hint="Choose another name.", param="name")
        if (self.cache_dir / directory_name(new_id)).exists():
            raise InvalidInput(f"{new_id} is installed already.", hint=f"Run: squish rm {new_id}", param="name")
        manifest = replace(source.manifest, id=new_id, installed_at=datetime.now(UTC))
        with self.lock(new_id, wait=False), self.staging(new_id) as staging, _store_errors(staging):
            for file in manifest.files:
                target = staging / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.hardlink_to(source.path / file.path)
                except OSError:  # another file system, or one without links
                    shutil.copyfile(source.path / file.path, target)
            return self.commit(staging, manifest)

    def prune(self) -> tuple[tuple[str, int], ...]:
        """Delete downloads that were begun and are not running now; their names and the bytes freed."""
        freed = []
        partial, trash = self.cache_dir / ".partial", self.cache_dir / ".trash"
        with _store_errors(partial):
            with self._locked("staging", "the store", wait=True):
                _sweep_staging(partial)
            for path in sorted(partial.iterdir()) if partial.is_dir() else ():
                if "~" in path.name:  # a living process builds a model there
                    continue
                try:
                    with self._locked(f"{path.name}.pull", path.name, wait=False):
                        size = _tree_size(path)
                        self._discard(path)
                except ModelInUse:
                    continue
                freed.append((path.name.replace("--", "/").replace("+", ":"), size))
            for path in trash.iterdir() if trash.is_dir() else ():
                shutil.rmtree(path, ignore_errors=True)
        return tuple(freed)

    def _id_to_remove(self, name: str) -> str:
        """The id that a name means; also of a broken model, and of one that is only half downloaded."""
        try:
            return self.find(name).manifest.id
        except (ModelNotFound, CorruptModel):
            if isinstance(ref := parse(name), LocalPath):
                raise
            return str(ref)

    def _scan(self) -> tuple[tuple[Installed, ...], tuple[Problem, ...]]:
        found, problems = [], []
        with self._looking(), _store_errors(self.cache_dir):
            for path in self.cache_dir.iterdir() if self.cache_dir.exists() else ():
                if path.name.startswith(".") or not path.is_dir():
                    continue
                try:
                    found.append(Installed(read_manifest(path), path))
                except CorruptModel as error:
                    problems.append(Problem(path, error.message))
                except ModelNotFound:  # removed while we were looking
                    continue
        return tuple(sorted(found, key=lambda each: each.manifest.id)), tuple(problems)

    def _not_found(self, name: str, *, to_remove: bool = False) -> ModelNotFound:
        """With advice that works: names that are here, and what can be pulled, each said to be what it is."""
        ref = parse(name)
        here = [manifest.id for manifest in self.list()]
        entry = catalog.lookup(ref) if isinstance(ref, ShortName) else None
        near = [each for each in catalog.nearest(name, also=here) if entry is None or each in here]
        hints = []
        if installed := [each for each in near if each in here]:
            hints.append(f"Installed names like it: {', '.join(installed)}.")
        if not to_remove and (entry is not None or not isinstance(ref, ShortName)):
            hints.append(f"Run: squish pull {name}")
        elif others := [each for each in near if each not in here]:
            hints.append(f"Names like it that can be pulled: {', '.join(others)}.")
        if not hints:
            hints.append("`squish list` shows what is installed, `squish search` what there is.")
        return ModelNotFound(f"{name} is not installed.", hint=" ".join(hints), param="model")

    @contextmanager
    def _locked(self, file_name: str, id: str, *, wait: bool) -> Iterator[None]:
        path = self.cache_dir / ".locks" / file_name
        with _store_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
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
    def _looking(self) -> Iterator[None]:
        """Read while no model is being replaced, those put back first whose replacing was killed half way."""
        waiting = self.cache_dir / ".old"
        for old in waiting.iterdir() if waiting.is_dir() else ():
            with self._locked(f"{old.name}.commit", old.name, wait=True), _store_errors(waiting):
                self._restore(old)
        try:
            descriptor = os.open(self.cache_dir / ".locks" / "swap", os.O_RDONLY)
        except OSError:  # nothing was ever written here
            yield
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # shared locks that overlap would keep a writer out for ever
            yield
        finally:
            os.close(descriptor)

    def _restore(self, old: Path) -> None:
        """Put a set-aside model back, or away when a newer one is in its place. To be called under its commit lock."""
        if not old.exists():
            return
        if (self.cache_dir / old.name).exists():
            self._discard(old)
        else:
            old.rename(self.cache_dir / old.name)

    def _discard(self, path: Path) -> None:
        """Take a directory out of sight by one rename, then delete it and what earlier processes failed to delete."""
        trash = self.cache_dir / ".trash"
        trash.mkdir(exist_ok=True)
        path.rename(trash / secrets.token_hex(8))
        sync(path.parent)
        for each in trash.iterdir():
            shutil.rmtree(each, ignore_errors=True)


@contextmanager
def _store_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The model store cannot be used: {error.strerror or error} ({error.filename or path}).",
            hint="Set SQUISH_CACHE_DIR to a directory that can be written, and check the free space.",
        ) from error


def _hashed(directory: Path, known: tuple[StoredFile, ...]) -> tuple[StoredFile, ...]:
    """The files of a directory tree, flushed to disk. A link or a device in it is refused: it would lead outside."""
    trusted = {file.path: file for file in known}
    files: list[StoredFile] = []
    for path in sorted(directory.rglob("*")):
        name = PurePosixPath(path.relative_to(directory)).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise StoreError(f"{name} is no regular file and cannot be installed.")
        if path.is_dir() or name == MANIFEST:
            continue
        size, seen = path.stat().st_size, trusted.get(name)
        digest = seen.sha256 if seen is not None and seen.size == size else _sha256(path)
        files.append(StoredFile(name, size, digest))
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return tuple(files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sweep_staging(root: Path) -> None:
    """Remove staging directories that no living process holds. To be called under the staging lock."""
    for path in root.glob("*~*") if root.is_dir() else ():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)


def _is_held(path: Path) -> bool:
    """Whether a worker holds the model's directory, which it does as long as it serves the model."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _tree_size(path: Path) -> int:
    """Bytes that deleting a directory frees: a file that has another name elsewhere stays."""
    found = [each.lstat() for each in path.rglob("*")]
    return sum(each.st_size for each in found if stat.S_ISREG(each.st_mode) and each.st_nlink == 1)
