"""The use case of installing a model: resolve → download → import → verify → commit, as a stream of PullEvents.

A pull of one model is done once: a second one, in any process, waits and finds it installed. What was downloaded
survives a stop and is taken up by the next pull. It knows neither HTTP nor MLX.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from squish.config.settings import Settings
from squish.download.transfer import Policy, require_space
from squish.errors import (
    CorruptModel,
    EngineError,
    InvalidInput,
    ModelInUse,
    ModelNotFound,
    StoreError,
    UnsupportedModel,
)
from squish.hub.client import Snapshot
from squish.ipc.frames import Imported, ImportGguf, InspectModel, JobProgress
from squish.ipc.process import run_job
from squish.models import recipes
from squish.models.manifest import read_json
from squish.models.recipes import Compression
from squish.models.store import Installed, Manifest, Store, StoredFile
from squish.names import RepoName, parse
from squish.pull.events import Notice, Progress, Pulled, PullEvent, PullStarted
from squish.pull.fetch import Fetch, Fetched
from squish.pull.sources import DirectorySource, FileSource, HubSource, Plan, inside, is_model_file, resolve

__all__ = ["Notice", "Progress", "PullEvent", "PullStarted", "Pulled", "pull"]

_TICK = 0.1


async def pull(
    name: str,
    *,
    settings: Settings,
    store: Store,
    force: bool = False,
    as_name: str | None = None,
    compression: Compression | None = None,
    policy: Policy | None = None,
) -> AsyncGenerator[PullEvent]:
    """Install the model of a name; one that is installed is done at once, unless `force`.

    as_name: the id to install it under. compression: what to do with full precision, by default what the catalog says
    of a short name, and 4 bits for a repository.
    Closing the iterator stops the pull; what was downloaded stays for the next.
    Raises the SquishErrors of resolving (InvalidName, ModelNotFound, Offline), downloading, importing and the store.
    """
    plan, wanted = _decide(resolve(name, as_name=as_name, offline=settings.offline), compression, as_name)
    yield PullStarted(plan.id, str(plan.source))
    if not force and (there := _installed(store, plan, wanted)) is not None:
        yield Pulled(there, fresh=False)
        return
    async with _turn(store, plan.id):
        if not force and (there := _installed(store, plan, wanted)) is not None:
            yield Pulled(there, fresh=False)
            return
        yield Progress("resolve", 0, 0)
        events = _Pull(_again(name, plan, wanted), plan, settings, store, wanted, policy).run()
        async with aclosing(events):
            async for event in events:
                yield event


def _decide(plan: Plan, asked: Compression | None, as_name: str | None) -> tuple[Plan, Compression]:
    """The plan with the name that its compression gives it, and the compression.

    A name that is not asked for says how the model was compressed, where that is not the usual way.
    """
    source = plan.source
    if isinstance(source, HubSource) and (tagged := recipes.from_tag(source.repo.tag)) is not None:
        if asked is not None and asked.asked:
            raise InvalidInput(f"{plan.id} names its bits already.", hint="Leave --bits out.", param="--bits")
        wanted = tagged if asked is None else replace(asked, recipe=tagged.recipe, asked=True)
        _require_compressing(wanted)
        return replace(plan, source=HubSource(replace(source.repo, tag=None))), wanted
    if not isinstance(source, HubSource):
        if asked is not None and (asked.only or (asked.asked and asked.recipe is not None)):
            raise InvalidInput(
                "Only a Hub repository is compressed while it is pulled.",
                hint=f"{plan.id} can be taken as it is, without {asked.only or '--bits'}.",
                param=asked.only or "--bits",
            )
        return plan, Compression(None)
    if asked is None or not asked.asked:
        usual = None if plan.as_published else recipes.DEFAULT
        return plan, replace(asked or Compression(), recipe=usual)
    _require_compressing(asked)
    if as_name is None and asked.recipe != recipes.DEFAULT:
        return replace(plan, id=recipes.named(plan.id, recipes.tag(asked.recipe))), asked
    return plan, asked


def _again(name: str, plan: Plan, wanted: Compression) -> str:
    """The name that, pulled once more, gives the same model, whatever it is called."""
    match plan.source:
        case HubSource(repo) if wanted.asked or not plan.as_published:
            usual = wanted.recipe == recipes.DEFAULT
            return str(repo if usual or repo.tag else replace(repo, tag=recipes.tag(wanted.recipe)))
        case FileSource(path) | DirectorySource(path) if not plan.as_published:
            return str(path)
    return str(parse(name))


def _require_compressing(wanted: Compression) -> None:
    if wanted.recipe is None and wanted.only:
        raise InvalidInput(
            f"{wanted.only} is about compressing, and --bits none compresses nothing.", param=wanted.only
        )


def _installed(store: Store, plan: Plan, wanted: Compression) -> Installed | None:
    """The model of a plan if it is installed and, for a local file, not older than the file.

    Raises InvalidInput where another one has its name.
    """
    try:
        found = store.find(plan.id)
    except (ModelNotFound, CorruptModel):
        return None
    hint = "Give this one another name with --name, or replace it with --force."
    if found.manifest.source != str(plan.source) and not plan.as_published:
        raise InvalidInput(f"{plan.id} is installed from {found.manifest.source}.", hint=hint, param="name")
    recipe, config = wanted.recipe, read_json(found.path / "config.json")
    if wanted.asked and recipe is not None and not recipes.matches(recipe, config):
        raise InvalidInput(f"{plan.id} is installed as {found.manifest.quantization}.", hint=hint, param="--bits")
    if isinstance(plan.source, HubSource) or plan.as_published:
        return found
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

    def __init__(
        self, name: str, plan: Plan, settings: Settings, store: Store, wanted: Compression, policy: Policy | None
    ) -> None:
        self._plan, self._settings, self._store = plan, settings, store
        self._name = name
        self._wanted, self._policy = wanted, policy
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
        partial = self._store.partial(self._plan.id)
        fetch, complete = Fetch(repo, partial, self._settings, self._wanted, self._policy), False
        try:
            steps = fetch.run()
            async with aclosing(steps):
                async for event in steps:
                    yield event
            if fetch.result is None:
                raise EngineError("The download ended without a result.")
            complete = True
            rest = self._installed_from(fetch.result)
            async with aclosing(rest):
                async for done in rest:
                    if isinstance(done, Pulled):
                        await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
                    yield done
        except (UnsupportedModel, InvalidInput, ModelNotFound, CorruptModel) as error:
            if complete or not isinstance(error, CorruptModel):  # no later pull will need these bytes
                await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
            raise
        finally:
            with suppress(OSError):  # there is something in it, or it is installed
                partial.rmdir()

    async def _installed_from(self, fetched: Fetched) -> AsyncGenerator[PullEvent]:
        """Commit what was fetched: an imported GGUF file, a model, or a model and the original it was made of."""
        if fetched.gguf is not None:
            steps = self._from_gguf(fetched.gguf, fetched.snapshot)
        else:
            steps = self._inspected(fetched.directory, fetched.snapshot, fetched.known)
        async with aclosing(steps):
            async for event in steps:
                if not isinstance(event, Pulled) or fetched.report is None:
                    yield event
                    continue
                kept = None
                if fetched.source is not None:
                    kept = await self._kept(fetched, fetched.source)
                yield replace(event, compression=replace(fetched.report, kept_as=kept))

    async def _kept(self, fetched: Fetched, source: Path) -> str:
        """Install the original too; its id."""
        id = recipes.named(self._base_id(), recipes.tag(None))
        async for _ in self._job(InspectModel(path=str(source)), 0):
            pass
        name = f"{fetched.snapshot.repo_id}:{recipes.tag(None)}"
        await self._commit(source, fetched.snapshot, fetched.source_known, id, name)
        return id

    def _base_id(self) -> str:
        """The id without the tag of its compression."""
        suffix = recipes.tag(self._wanted.recipe)
        return self._plan.id.removesuffix(f":{suffix}").removesuffix(f"-{suffix}")

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
        """Copy the model files of a directory; links are followed inside it and to the blobs of a Hub cache."""
        names = [path.name for path in source.iterdir() if path.is_file()]
        taken = [name for name in names if is_model_file(name)]
        ggufs = [name for name in names if name.lower().endswith(".gguf")]
        if not any(name.endswith(".safetensors") for name in taken):
            if len(ggufs) != 1:
                raise UnsupportedModel(f"{source} has no .safetensors weights and no single .gguf file.", param="model")
            steps = self._from_gguf(inside(source, ggufs[0]))
            async with aclosing(steps):
                async for event in steps:
                    yield event
            return
        files = {name: inside(source, name) for name in taken}
        sizes = {name: path.stat().st_size for name, path in files.items()}
        total, done = sum(sizes.values()), 0
        with self._store.staging(self._plan.id) as staging:
            require_space(staging, total)
            for name, size in sizes.items():
                yield Progress("import", done, total)
                await asyncio.to_thread(_copy, files[name], staging / name)
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
                elif isinstance(event, JobProgress):
                    yield Progress("import", int(size * event.fraction), size)
        finally:
            if isinstance(events, AsyncGenerator):  # stopped half way: the worker ends now, not when it is collected
                await events.aclose()

    async def _commit(
        self,
        directory: Path,
        snapshot: Snapshot | None,
        known: tuple[StoredFile, ...],
        id: str | None = None,
        name: str | None = None,
    ) -> Installed:
        imported = self._imported
        if imported is None:
            raise EngineError("The import ended without a result.")
        manifest = Manifest(
            id=id or self._plan.id,
            source=str(self._plan.source),
            revision=snapshot.commit if snapshot is not None else None,
            architecture=imported.architecture,
            quantization=imported.quantization,
            parameters=imported.parameters,
            context_length=imported.context_length,
            license=imported.license or self._plan.license or (snapshot.license if snapshot is not None else None),
            installed_at=datetime.now(UTC),
            files=known,
            pulled=name or self._name,
        )
        return await asyncio.to_thread(self._store.commit, directory, manifest)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise StoreError(f"{source} cannot be copied: {error.strerror or error}.") from error
