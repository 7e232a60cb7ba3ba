"""From files on this machine to an installed model: import or copy, have a worker judge them, hash, commit."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from msgspec.structs import replace

from squish.download.disk import copy_file, hash_file, in_thread, link_file, require_space
from squish.errors import CorruptModel, UnsupportedModel
from squish.files import write_whole
from squish.format import adapters
from squish.hub.snapshot import Snapshot
from squish.ipc.frames import Imported, ImportGguf, InspectModel, JobProgress
from squish.ipc.jobs import Jobs
from squish.models import recipes
from squish.models.manifest import MANIFEST, Installed, Manifest, StoredFile, read_json
from squish.names import ModelId
from squish.pull import adapter, counterpart
from squish.pull.beginning import damaged
from squish.pull.events import CompressionReport, Phase, Progress, Pulled, Report
from squish.pull.fetch import Fetched, FetchedModel
from squish.pull.local_files import model_files
from squish.pull.order import Order
from squish.pull.repository import gguf_parts, is_model_gguf, is_safe_name, is_weights
from squish.pull.sources import DirectorySource, Source, inside, is_gguf

_NAMED = 5  # files of several that could be meant


async def install_fetched(order: Order, fetched: Fetched, report: Report, jobs: Jobs) -> Pulled:
    """Install what was fetched: a GGUF file, a model, or a compressed model with the original it was made of."""
    model, snapshot, compression = fetched.model, fetched.snapshot, fetched.compression
    if model.path.is_file():
        return Pulled(await install_gguf(order, model.path, report, jobs, snapshot))
    imported = await _inspect(model.path, report, jobs)
    files = await _hash_files(model.path, model.checked, report)
    installed = await _commit(order, model.path, imported, files, snapshot, compression=compression)
    if compression is not None and fetched.original is not None and snapshot is not None:
        kept_as = await _install_original(order, fetched.original, snapshot, report, jobs)
        compression = replace(compression, kept_as=kept_as)
    return Pulled(installed, compression=compression)


async def install_gguf(
    order: Order, path: Path, report: Report, jobs: Jobs, snapshot: Snapshot | None = None
) -> Installed:
    """Import a GGUF file that lies on this machine, or the model whose part it is.

    snapshot: of the Hub, where it comes from there.
    """
    size = sum(part.stat().st_size for part in gguf_parts(path))

    def imported_so_far(progress: JobProgress) -> None:
        if progress.phase == "weights":
            report(Progress("import", int(size * progress.fraction), size))
            if progress.fraction >= 1:  # what was written is opened as it will be at every load
                report(Progress("verify", 0, size))

    with order.store.staging(order.id) as staging:
        require_space(staging, size)
        report(Progress("import", 0, size))
        job = ImportGguf(source=str(path), destination=str(staging))
        try:
            imported = await jobs.run(job, Imported, imported_so_far)
        except UnsupportedModel as error:
            raise counterpart.advised(error, snapshot.repo_id if snapshot else path.parent.name, path.name) from error
        except CorruptModel as error:
            raise (damaged(error, snapshot.repo_id) if snapshot else error) from error
        files = await _hash_files(staging, (), report)
        return await _commit(order, staging, imported, files, snapshot)


def require_no_adapter(source: Path) -> None:
    """Raises InvalidInput for a directory that holds an adapter."""
    if adapters.is_adapter([path.name for path in source.iterdir() if path.is_file()]):
        raise adapter.without_base(str(source), read_json(source / adapters.CONFIG))


async def install_directory(order: Order, source: Path, report: Report, jobs: Jobs) -> Installed:
    """Copy or link the model files of a directory; links are followed inside it and to the blobs of a Hub cache."""
    linked = isinstance(order.source, DirectorySource) and order.source.linked
    taken = model_files(source)
    if not any(is_weights(name) for name in taken):
        return await install_gguf(order, _single_gguf(source), report, jobs)
    if unsafe := [name for name in taken if not is_safe_name(name)]:
        shown = "".join(each if each.isprintable() else "?" for each in unsafe[0])[:60]
        problem = f"{source} has a file whose name is not safe to store: {shown!r}."
        raise UnsupportedModel(problem, hint="Rename it, or move it away if it does not belong there.", param="model")
    files = {name: inside(source, name) for name in taken}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    total, copied = sum(sizes.values()), list[StoredFile]()
    with order.store.staging(order.id) as staging:
        if not linked:
            require_space(staging, total)
        for name, size in sizes.items():
            before = sum(each.size for each in copied)
            report(Progress("import", before, total))
            (staging / name).parent.mkdir(exist_ok=True)
            place = link_file if linked and is_weights(name) else copy_file
            seen = reporting(report, "import", before, total)
            digest = await in_thread(place, files[name], staging / name, seen)
            copied.append(StoredFile(name, size, digest))
        imported = await _inspect(staging, report, jobs)
        return await _commit(order, staging, imported, await _hash_files(staging, tuple(copied), report))


def _single_gguf(source: Path) -> Path:
    names = sorted(path.name for path in source.iterdir() if path.is_file())
    found = [name for name in names if is_model_gguf(name) or (not name.endswith(".gguf") and is_gguf(source / name))]
    first = found[:1] if found and [path.name for path in gguf_parts(source / found[0])] == found else found
    if not first:
        raise UnsupportedModel(f"{source} has no .safetensors weights and no .gguf file.", param="model")
    if len(first) > 1:
        hint = f"Name one of them: {', '.join(first[:_NAMED])}{', …' if len(first) > _NAMED else ''}."
        raise UnsupportedModel(f"{source} has several .gguf files.", hint=hint, param="model")
    return inside(source, first[0])


async def _install_original(
    order: Order, original: FetchedModel, snapshot: Snapshot, report: Report, jobs: Jobs
) -> str:
    """Install the original of a compressed model too; its id."""
    _strip_marks(original.path)
    imported = await jobs.run(InspectModel(path=str(original.path)), Imported)
    files = await _hash_files(original.path, original.checked, report)
    ref, name = order.original_ref, f"{snapshot.repo_id}:{recipes.tag(None)}"
    await _commit(order, original.path, imported, files, snapshot, ref=ref, name=name)
    return str(ref)


async def _inspect(directory: Path, report: Report, jobs: Jobs) -> Imported:
    """Have a worker say what a directory is. Raises what loading it would raise."""
    _strip_marks(directory)
    report(Progress("verify", 0, sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())))
    return await jobs.run(InspectModel(path=str(directory)), Imported)


def _strip_marks(directory: Path) -> None:
    """Take the byte order mark away from JSON files, which some editors write and most libraries stumble over."""
    for path in directory.glob("*.json"):
        with path.open("rb") as file:
            marked = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        if marked:
            write_whole(path, path.read_bytes().removeprefix(codecs.BOM_UTF8), durable=False)


async def _hash_files(directory: Path, checked: tuple[StoredFile, ...], report: Report) -> tuple[StoredFile, ...]:
    """Every file with its hash. checked: those whose hash is known."""
    known = {file.path: file for file in checked}
    sizes = {path: path.stat().st_size for path in sorted(directory.rglob("*")) if path.is_file()}
    files, done, total = list[StoredFile](), 0, sum(sizes.values())
    for path, size in sizes.items():
        name = path.relative_to(directory).as_posix()
        report(Progress("verify", done, total))
        if name != MANIFEST:
            seen = known.get(name)
            if seen is None or seen.size != size:
                counting = reporting(report, "verify", done, total)
                seen = StoredFile(name, size, await in_thread(hash_file, path, counting))
            files.append(seen)
        done += size
    return tuple(files)


def reporting(report: Report, phase: Phase, before: int, total: int) -> Callable[[int], None]:
    """Reports the bytes of one file, from another thread; before: bytes of the files that come first."""
    loop = asyncio.get_running_loop()

    def seen(done: int) -> None:
        loop.call_soon_threadsafe(report, Progress(phase, before + done, total))

    return seen


async def _commit(
    order: Order,
    directory: Path,
    imported: Imported,
    files: tuple[StoredFile, ...],
    snapshot: Snapshot | None = None,
    *,
    ref: ModelId | None = None,
    name: str | None = None,
    compression: CompressionReport | None = None,
) -> Installed:
    """Make a directory the model of the order. ref, name: of the original instead."""
    manifest = Manifest(
        id=str(ref or order.ref),
        source=str(order.source),
        revision=snapshot.commit if snapshot is not None else _revision(order.source),
        architecture=imported.architecture,
        quantization=imported.quantization,
        parameters=imported.parameters,
        context_length=imported.context_length,
        license=imported.license or order.license or (snapshot.license if snapshot is not None else None),
        installed_at=datetime.now(UTC),
        files=files,
        pulled=name or order.name,
        kind=imported.kind,
        linked=_linked(order.source, directory),
        loss=compression.loss if compression is not None else None,
        unmeasured=compression.unmeasured if compression is not None else "",
        recipe=order.local_recipe if compression is not None else None,
    )

    def commit(stop: Event) -> Installed:  # a moment's work: it is not stopped half way, but waited for
        return order.store.commit(directory, manifest)

    return await in_thread(commit)


def _revision(source: Source) -> str | None:
    return source.revision if isinstance(source, DirectorySource) else None


def _linked(source: Source, directory: Path) -> str | None:
    """The directory that the links among the files of a model lead to, where there are any."""
    if isinstance(source, DirectorySource) and any(path.is_symlink() for path in directory.iterdir()):
        return str(source.path)
    return None
