"""The model store: which models are installed, and how one comes and goes without ever being half there.

A model appears by one rename of a complete directory and goes by one rename out of sight; layout.py says how that lies
on the disk. It knows neither the Hub nor what is inside the files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from msgspec.structs import replace as with_fields

from squish.errors import CorruptModel, InvalidInput, ModelInUse, ModelNotFound, StoreError
from squish.format import model_directory
from squish.models import catalog, elsewhere, sharing
from squish.models.layout import Layout, is_held, present, store_errors
from squish.models.manifest import (
    MANIFEST,
    DamagedModel,
    Installed,
    Manifest,
    StoredFile,
    directory_name,
    is_inside,
    read_manifest,
    with_kind,
    write_manifest,
)
from squish.names import LocalPath, ModelId, ShortName, parse, without_latest

__all__ = ["MANIFEST", "DamagedModel", "Installed", "Manifest", "Store", "StoredFile", "directory_name", "is_inside"]


class Store:
    """The installed models under cache_dir. Safe for many processes and threads at once; it keeps nothing in memory."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self.layout = Layout(cache_dir)

    def list(self) -> list[Manifest]:
        """Every installed model, sorted by id. What cannot be read is skipped; see `problems`."""
        return [each.manifest for each in self.installed()]

    def installed(self) -> tuple[Installed, ...]:
        """The same with the directory of each."""
        return self._scan()[0]

    def problems(self) -> tuple[DamagedModel, ...]:
        """Directories that look like models and are none."""
        return self._scan()[1]

    def find(self, name: str) -> Installed:
        """The installed model of a name; a catalog name without a tag means the catalog's default, and the tag `latest`
        the same as none.

        Raises InvalidName, ModelNotFound, CorruptModel (a manifest that cannot be read), StoreError.
        """
        ref = parse(name)
        if isinstance(ref, LocalPath):
            source = f"file:{ref.path.expanduser().absolute()}"
            if found := [each for each in self._scan()[0] if each.manifest.source == source]:
                return found[0]
            raise ModelNotFound(f"{name} is not imported yet.", hint=f"Run: squish pull {name}", param="model")
        with self.layout.reading():
            for id in _ids(ref):
                path = self.cache_dir / directory_name(id)
                elsewhere.require_reachable(path, id)
                if path.is_dir():
                    return Installed(read_manifest(path), path)
        raise self._not_found(str(ref))

    def has(self, id: str) -> bool:
        """Whether a model of exactly this id is installed, also on a disk that is not connected."""
        return os.path.lexists(self.cache_dir / model_directory.directory_name(id))

    def manifest(self, name: str) -> Manifest:
        """What is known of an installed model. Raises what `find` raises."""
        return self.find(name).manifest

    def verify(self, name: str) -> None:
        """Read every file of a model again. Raises CorruptModel naming the first that is not what was installed."""
        installed = self.find(name)
        for file in installed.manifest.files:
            path = installed.path / file.path
            if not path.is_file() or path.stat().st_size != file.size or _sha256(path) != file.sha256:
                raise CorruptModel(
                    f"{file.path} of {installed.manifest.id} is missing or was changed.",
                    hint=f"Run: {installed.manifest.pull_command}",
                    param="model",
                )
        if extra := installed.extra:
            raise CorruptModel(
                f"{extra} is in the directory of {installed.manifest.id} but was not installed with it; the model may "
                "be loaded from it.",
                hint=f"Delete {installed.path / extra}, or run: {installed.manifest.pull_command}",
                param="model",
            )

    @contextmanager
    def lock(self, id: str, *, wait: bool = True) -> Iterator[None]:
        """Hold the right to install or remove a model, among all processes. Raises ModelInUse where wait is False."""
        with self.layout.locked(f"{directory_name(id)}.pull", id, wait=wait):
            yield

    def partial(self, id: str) -> Path:
        """The directory in which the download of a model is kept until it is complete. To be used under `lock`."""
        path = self.layout.partial / directory_name(id)
        with store_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def staging(self, id: str) -> AbstractContextManager[Path]:
        """An empty directory to build a model in, removed at the end unless `commit` has taken it."""
        return self.layout.staging(directory_name(id), id)

    def commit(self, staging: Path, manifest: Manifest) -> Installed:
        """Make a directory under .partial the model of its manifest, replacing an older one of the same id.

        Every file is hashed, but for those that manifest.files names with their size: those were checked on their way.
        Other models then have the files that are equal to theirs from this one. Readers that put a set-aside model
        back, and others that commit the same one, are waited for. Raises StoreError.
        """
        if self.layout.partial not in staging.parents:
            raise ValueError("only a directory under .partial can be committed")
        name = directory_name(manifest.id)
        with self.layout.locked(f"{name}.commit", manifest.id, wait=True), store_errors(self.cache_dir / name):
            files = _hashed(staging, manifest.files, linked=manifest.linked is not None)
            complete = replace(with_kind(manifest, staging), files=files)
            write_manifest(staging, complete)
            if (before := elsewhere.directory(self.layout, name)) is not None:
                elsewhere.remember(self.layout, name, before)
            installed = Installed(complete, self.layout.swap(staging, name, manifest.id))
            elsewhere.settle(self.layout, name)
        sharing.share(self.layout, installed, self.installed())
        return installed

    def remove(self, name: str, *, force: bool = False) -> int:
        """Remove a model and what was downloaded of it so far; the bytes freed.

        Of a model that is a link to a directory of somebody else only the link goes, and nothing is freed.
        Raises ModelNotFound, or ModelInUse while another process installs it or, without force, serves it.
        """
        id = self.id_to_remove(name)
        directory = directory_name(id)
        path, partial = self.cache_dir / directory, self.layout.partial / directory
        with self.lock(id, wait=False), self.layout.locked(f"{directory}.commit", id, wait=True), store_errors(path):
            self.layout.restore(self.layout.old / directory)
            there = [each for each in (path, partial) if present(each)]
            if not there:
                raise self._not_found(id, to_remove=True)
            moved = elsewhere.may_be_left(self.layout, directory)
            if not force and (users := [each.id for each in self.list() if each.base == id]):
                raise ModelInUse(
                    f"{id} is the model of {', '.join(users)}.",
                    hint=f"Run: squish rm {' '.join(users)} {id}. To delete it alone: squish rm --force {id}",
                    param="model",
                )
            if not force and path.exists() and is_held(path):
                raise ModelInUse(
                    f"{id} is in use by another running Squish.",
                    hint=f"Close it, or unload the model there. To delete it anyway: squish rm --force {id}",
                    param="model",
                )
            freed = sharing.bytes_freed(*there, *([moved] if moved else []))
            if moved is not None:
                elsewhere.remember(self.layout, directory, moved)
            for each in there:
                self.layout.discard(each)
            elsewhere.settle(self.layout, directory)
        return freed

    def link_target(self, name: str) -> Path | None:
        """Where a model of somebody else lies, when its directory in the store is a link to it. Raises InvalidName."""
        directory = directory_name(self.id_to_remove(name))
        path = self.cache_dir / directory
        return path.resolve() if path.is_symlink() and elsewhere.directory(self.layout, directory) is None else None

    def copy(self, name: str, new_id: str) -> Installed:
        """Install a model under a second name, sharing its files on disk where the file system can.

        Raises ModelNotFound, InvalidName, InvalidInput (the name is taken), StoreError.
        """
        source = self.find(name)
        if source.manifest.id == new_id:
            raise InvalidInput(f"{new_id} already has that name.", hint="Choose another name.", param="name")
        if (self.cache_dir / directory_name(new_id)).exists():
            raise InvalidInput(f"{new_id} is already installed.", hint=f"Run: squish rm {new_id}", param="name")
        manifest = replace(source.manifest, id=new_id, installed_at=datetime.now(UTC))
        with self.lock(new_id, wait=False), self.staging(new_id) as staging, store_errors(staging):
            for file in manifest.files:
                target = staging / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.hardlink_to(source.path / file.path)
                except OSError:  # another file system, or one without links
                    shutil.copyfile(source.path / file.path, target)
            return self.commit(staging, manifest)

    def id_to_remove(self, name: str) -> str:
        """The id that a name means; also of a broken model, and of one that is only half downloaded."""
        try:
            return self.find(name).manifest.id
        except (ModelNotFound, CorruptModel):
            if isinstance(ref := parse(name), LocalPath):
                raise
            return str(ref)

    def _scan(self) -> tuple[tuple[Installed, ...], tuple[DamagedModel, ...]]:
        found, problems = [], []
        with self.layout.reading(), store_errors(self.cache_dir):
            for path in self.cache_dir.iterdir() if self.cache_dir.exists() else ():
                if path.name.startswith(".") or not (path.is_dir() or (path.is_symlink() and not path.exists())):
                    continue
                try:
                    elsewhere.require_reachable(path, model_directory.display_name(path))
                    found.append(Installed(read_manifest(path), path))
                except CorruptModel as error:
                    problems.append(DamagedModel(path, error.message))
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
        if not isinstance(ref, LocalPath) and ref.adapter:
            model = with_fields(ref, adapter=None)
            hints.append(f"An adapter is installed so: squish pull ADAPTER --base {model} --name {ref.adapter}")
        elif not to_remove and (entry is not None or not isinstance(ref, ShortName)):
            hints.append(f"Run: squish pull {name}")
        elif others := [each for each in near if each not in here]:
            hints.append(f"Names like it that can be pulled: {', '.join(others)}.")
        if not hints:
            hints.append("`squish list` shows what is installed; `squish search` finds more.")
        return ModelNotFound(f"{name} is not installed.", hint=" ".join(hints), param="model")


def _ids(ref: ModelId) -> Iterator[str]:
    """What a model of this name can be installed as: first by the name itself, for which no catalog is read."""
    yield str(ref)
    plain, adapter = with_fields(ref, adapter=None), f"+{ref.adapter}" if ref.adapter else ""
    if isinstance(plain, ShortName) and (entry := catalog.lookup(plain)) is not None:
        yield f"{entry.id}{adapter}"
    yield str(without_latest(ref))


def _hashed(directory: Path, known: tuple[StoredFile, ...], *, linked: bool) -> tuple[StoredFile, ...]:
    """The files of a directory tree, flushed to disk. A device in it is refused, and a link, which leads outside.

    linked: links to weights are meant to.
    """
    trusted = {file.path: file for file in known}
    files: list[StoredFile] = []
    for path in sorted(directory.rglob("*")):
        name = PurePosixPath(path.relative_to(directory)).as_posix()
        leads_out = path.is_symlink() and not (linked and name.endswith(".safetensors"))
        if leads_out or not (path.is_file() or path.is_dir()):
            raise StoreError(f"{name} is not a regular file and cannot be installed.")
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
