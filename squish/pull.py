"""The use case of installing a model: resolve → download → import → verify → commit, as a stream of PullEvents.

A pull of one model is done once: a second one, in any process, waits and finds it installed. What was downloaded
survives a stop and is taken up by the next pull. It knows neither HTTP nor MLX.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from squish.config import Settings
from squish.download import Download, Policy, require_space
from squish.errors import (
    CorruptModel,
    EngineError,
    GatedRepo,
    InvalidInput,
    ModelInUse,
    ModelNotFound,
    StoreError,
    UnsupportedModel,
)
from squish.hub import Hub, Snapshot
from squish.names import RepoName
from squish.partfile import RemoteFile
from squish.protocol import Imported, ImportGguf, InspectModel
from squish.sources import DirectorySource, FileSource, HubSource, Plan, choose, is_model_file, resolve
from squish.store import Installed, Manifest, Store, StoredFile
from squish.workers import run_job

Phase = Literal["resolve", "download", "import", "verify"]

_TICK = 0.1


@dataclass(frozen=True, slots=True)
class PullStarted:
    """What is being installed under which id, and from where."""

    id: str
    source: str


@dataclass(frozen=True, slots=True)
class Progress:
    """done and total in bytes, total 0 where it is not known; speed in bytes per second, eta in seconds."""

    phase: Phase
    done: int
    total: int
    speed: float | None = None
    eta: float | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """The end: the model as it is installed. fresh: it was not there before this pull."""

    installed: Installed
    fresh: bool = True


PullEvent = PullStarted | Progress | Pulled


async def pull(
    name: str,
    *,
    settings: Settings,
    store: Store,
    force: bool = False,
    as_name: str | None = None,
    policy: Policy | None = None,
) -> AsyncGenerator[PullEvent]:
    """Install the model of a name; one that is installed is done at once, unless `force`.

    as_name: the id to install it under. Closing the iterator stops the pull; what was downloaded stays for the next.
    Raises the SquishErrors of resolving (InvalidName, ModelNotFound, Offline), downloading, importing and the store.
    """
    plan = resolve(name, as_name=as_name, offline=settings.offline)
    yield PullStarted(plan.id, str(plan.source))
    if not force and (there := _installed(store, plan)) is not None:
        yield Pulled(there, fresh=False)
        return
    async with _turn(store, plan.id):
        if not force and (there := _installed(store, plan)) is not None:
            yield Pulled(there, fresh=False)
            return
        yield Progress("resolve", 0, 0)
        events = _Pull(plan, settings, store, policy).run()
        async with aclosing(events):
            async for event in events:
                yield event


def _installed(store: Store, plan: Plan) -> Installed | None:
    """The model of a plan if it is installed and, for a local file, not older than the file."""
    try:
        found = store.find(plan.id)
    except (ModelNotFound, CorruptModel):
        return None
    if isinstance(plan.source, HubSource) or not str(plan.source).startswith("file:"):
        return found
    if found.manifest.source != str(plan.source):
        raise InvalidInput(
            f"{plan.id} is installed from {found.manifest.source}.",
            hint="Give this one another name with --name, or replace it with --force.",
            param="name",
        )
    changed = plan.source.path.stat().st_mtime > found.manifest.installed_at.timestamp()
    return None if changed else found


@asynccontextmanager
async def _turn(store: Store, id: str) -> AsyncGenerator[None]:
    """The right to install a model, waited for without blocking the event loop."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(store.lock(id, wait=False))
                break
            except ModelInUse:
                await asyncio.sleep(_TICK)
        yield


class _Pull:
    """One pull that has its turn."""

    def __init__(self, plan: Plan, settings: Settings, store: Store, policy: Policy | None) -> None:
        self._plan, self._settings, self._store, self._policy = plan, settings, store, policy
        self._imported: Imported | None = None

    async def run(self) -> AsyncGenerator[PullEvent]:
        match self._plan.source:
            case HubSource(repo):
                steps = self._from_hub(repo)
            case FileSource(path):
                steps = self._from_gguf(path)
            case DirectorySource(path):
                steps = self._from_directory(path)
        async with aclosing(steps):
            async for event in steps:
                yield event

    async def _from_hub(self, repo: RepoName) -> AsyncGenerator[PullEvent]:
        hub = Hub(self._settings)
        snapshot = await asyncio.to_thread(hub.snapshot, repo.repo_id, repo.revision)
        chosen = choose(snapshot, repo.tag)
        partial = self._store.partial(self._plan.id)
        files = tuple(RemoteFile(f.url, f.path, f.size, f.sha256, f.git_blob) for f in chosen)
        download = Download(files, partial, headers=await asyncio.to_thread(hub.headers), policy=self._policy)
        task = asyncio.create_task(download.run())
        try:
            async for progress in _watch(download, task):
                yield progress
            done = task.result()
        except GatedRepo as error:
            raise await asyncio.to_thread(hub.gated, repo.repo_id) from error
        finally:
            await _cancelled(task)
        if len(chosen) == 1 and chosen[0].path.lower().endswith(".gguf"):
            rest = self._from_gguf(download.directory / chosen[0].path, snapshot)
        else:
            known = tuple(StoredFile(each.path, each.size, each.sha256) for each in done)
            rest = self._inspected(download.directory, snapshot, known)
        try:
            async with aclosing(rest):
                async for event in rest:
                    if isinstance(event, Pulled):
                        await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
                    yield event
        except UnsupportedModel:  # no later pull will need these bytes
            await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
            raise

    async def _from_gguf(self, path: Path, snapshot: Snapshot | None = None) -> AsyncGenerator[PullEvent]:
        """Import a GGUF file that lies on this machine."""
        size = path.stat().st_size
        with self._store.staging(self._plan.id) as staging:
            require_space(staging, size)
            yield Progress("import", 0, size)
            job = self._job(ImportGguf(source=str(path), destination=str(staging)), size)
            async with aclosing(job):
                async for progress in job:
                    yield progress
            yield Progress("verify", 0, size)
            yield Pulled(await self._commit(staging, snapshot, ()))

    async def _from_directory(self, source: Path) -> AsyncGenerator[PullEvent]:
        """Copy the model files of a directory; links are followed, as a Hub cache is made of them."""
        names = [path.name for path in source.iterdir() if path.is_file()]
        taken = [name for name in names if is_model_file(name)]
        ggufs = [name for name in names if name.lower().endswith(".gguf")]
        if not any(name.endswith(".safetensors") for name in taken):
            if len(ggufs) != 1:
                raise UnsupportedModel(f"{source} has no .safetensors weights and no single .gguf file.", param="model")
            steps = self._from_gguf(source / ggufs[0])
            async with aclosing(steps):
                async for event in steps:
                    yield event
            return
        sizes = {name: (source / name).stat().st_size for name in taken}
        total, done = sum(sizes.values()), 0
        with self._store.staging(self._plan.id) as staging:
            require_space(staging, total)
            for name, size in sizes.items():
                yield Progress("import", done, total)
                await asyncio.to_thread(_copy, source / name, staging / name)
                done += size
            rest = self._inspected(staging, None, ())
            async with aclosing(rest):
                async for event in rest:
                    yield event

    async def _inspected(
        self, directory: Path, snapshot: Snapshot | None, known: tuple[StoredFile, ...]
    ) -> AsyncGenerator[PullEvent]:
        """Have a worker say what a directory is, then commit it."""
        size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        yield Progress("verify", 0, size)
        job = self._job(InspectModel(path=str(directory)), size)
        async with aclosing(job):
            async for _ in job:
                pass
        yield Pulled(await self._commit(directory, snapshot, known))

    async def _job(self, frame: ImportGguf | InspectModel, size: int) -> AsyncGenerator[Progress]:
        events = run_job(frame, self._settings.worker_cache)
        try:
            async for event in events:
                if isinstance(event, Imported):
                    self._imported = event
                else:
                    yield Progress("import", int(size * event.fraction), size)
        finally:
            if isinstance(events, AsyncGenerator):  # stopped half way: the worker ends now, not when it is collected
                await events.aclose()

    async def _commit(self, directory: Path, snapshot: Snapshot | None, known: tuple[StoredFile, ...]) -> Installed:
        imported = self._imported
        if imported is None:
            raise EngineError("The import ended without a result.")
        manifest = Manifest(
            id=self._plan.id,
            source=str(self._plan.source),
            revision=snapshot.commit if snapshot is not None else None,
            architecture=imported.architecture,
            quantization=imported.quantization,
            parameters=imported.parameters,
            context_length=imported.context_length,
            license=imported.license or self._plan.license or (snapshot.license if snapshot is not None else None),
            installed_at=datetime.now(UTC),
            files=known,
        )
        return await asyncio.to_thread(self._store.commit, directory, manifest)


async def _watch(download: Download, task: asyncio.Task[object]) -> AsyncGenerator[Progress]:
    """The progress of a download while its task runs. The speed is that of the last seconds."""
    loop = asyncio.get_running_loop()
    seen: deque[tuple[float, int]] = deque(maxlen=50)
    while True:
        seen.append((loop.time(), download.done))
        (first, before), (last, done) = seen[0], seen[-1]
        speed = (done - before) / (last - first) if last > first and done > before else None
        eta = (download.total - done) / speed if speed else None
        yield Progress("download", done, download.total, speed, eta)
        if task.done():
            return
        await asyncio.wait({task}, timeout=_TICK)


async def _cancelled(task: asyncio.Task[object]) -> None:
    """End a task and wait for it, whatever it ends with."""
    task.cancel()
    await asyncio.wait({task})


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise StoreError(f"{source} cannot be copied: {error.strerror or error}.") from error
