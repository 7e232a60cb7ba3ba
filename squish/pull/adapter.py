"""Installing an adapter (LoRA, DoRA) beside the model that it changes, which is installed already.

What is stored: the adapter's two files, and the model's small files, so that it has a config.json, a tokenizer and a
chat template like any model; those of some size are the same files on disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from squish.config.settings import Settings
from squish.download.disk import require_space
from squish.download.patience import Policy
from squish.download.remote_file import RemoteFile
from squish.download.transfer import Download
from squish.errors import GatedRepo, InvalidInput, InvalidName, ModelNotFound, SquishError, UnsupportedModel
from squish.format import adapters, model_directory
from squish.hub.client import Hub
from squish.ipc.frames import FuseAdapter, Imported, InspectAdapter
from squish.ipc.jobs import run_job
from squish.models.manifest import Installed, Manifest, read_json
from squish.models.store import Store
from squish.names import LocalPath, ModelRef, RepoName, as_word, parse
from squish.pull.events import Progress, Report
from squish.pull.progress import Meter
from squish.pull.sources import inside, local_id
from squish.system.awake import awake

_INDEX = model_directory.INDEX


@dataclass(frozen=True, slots=True)
class Given:
    """An adapter that is to be installed. name: the word behind the model's, None for that of its place."""

    ref: ModelRef
    name: str | None
    base: Installed
    settings: Settings
    store: Store
    policy: Policy | None

    @property
    def source(self) -> str:
        if isinstance(self.ref, LocalPath):
            return f"file:{self.ref.path.expanduser().absolute()}"
        return f"hub:{self.ref.repo_id}" if isinstance(self.ref, RepoName) else str(self.ref)

    @property
    def id(self) -> str:
        """What it is served as: `model+adapter`. Raises InvalidName."""
        manifest = self.base.manifest
        word = self.name.removeprefix(f"{manifest.id}+") if self.name else None
        if word is None:
            named = self.ref.repo if isinstance(self.ref, RepoName) else ""
            word = local_id(self.ref.path.absolute()) if isinstance(self.ref, LocalPath) else as_word(named).lower()
        if as_word(word) != word or not word:
            raise InvalidName(f"{word[:80]!r} cannot name an adapter.", hint="Write a word like poet.", param="--name")
        return str(parse(f"{manifest.id}+{word}"))


def without_base(name: str, config: Mapping[str, Any]) -> InvalidInput:
    """The error for an adapter that was to be pulled as a model."""
    made_for = config.get("base_model_name_or_path")
    said = f" It was made for {made_for}." if isinstance(made_for, str) else ""
    hint = f"Install that model, and run: squish pull {name} --base MODEL.{said}"
    return InvalidInput(f"{name} is an adapter, which changes a model and is none itself.", hint=hint, param="--base")


async def install_adapter(given: Given, report: Report) -> Installed:
    """Raises InvalidInput, UnsupportedModel, CorruptModel, and what the Hub and the store raise."""
    manifest = given.base.manifest
    manifest.require("chat")
    if manifest.base is not None:
        problem = f"{manifest.id} has an adapter already."
        raise InvalidInput(problem, hint=f"Name the model alone: --base {manifest.base}", param="--base")
    commit = None
    with given.store.staging(given.id) as staging:
        match given.ref:
            case LocalPath(path=path):
                _copy(path.expanduser().absolute(), staging)
            case RepoName() as repo:
                commit = await _download(given, repo, staging, report)
            case _:
                problem = f"{given.ref} is not an adapter's place."
                raise InvalidInput(problem, hint="Name its directory or its repository, ./adapter or org/repo.")
        _take_small_files(given.base, staging)
        report(Progress("verify", 0, 0))
        job = InspectAdapter(path=str(staging), base=str(given.base.path))
        imported = await run_job(job, given.settings.worker_cache, Imported)
        made = replace(
            manifest,
            id=given.id,
            source=given.source,
            revision=commit,
            quantization=imported.quantization,
            parameters=imported.parameters,
            installed_at=datetime.now(UTC),
            files=(),
            pulled=str(given.ref),
            linked=None,
            base=manifest.id,
        )
        return given.store.commit(staging, made)


async def fuse(settings: Settings, store: Store, name: str, new_id: str | None) -> Installed:
    """Install a model with an adapter's changes in its weights. Raises ModelNotFound, InvalidInput, StoreError."""
    adapter = store.find(name)
    base_id, own = adapter.manifest.base, adapter.manifest.id
    if base_id is None:
        raise InvalidInput(f"{own} has no adapter.", hint="Name one like llama3.1:8b+poet.", param="model")
    base, id = store.find(base_id), new_id or own.replace("+", "-")
    if (store.cache_dir / model_directory.directory_name(str(parse(id)))).exists():
        raise InvalidInput(f"{id} is already installed.", hint="Give it another name with --name.", param="--name")
    with awake(), store.lock(id, wait=False), store.staging(id) as staging:
        require_space(staging, base.manifest.size)
        job = FuseAdapter(path=str(adapter.path), base=str(base.path), destination=str(staging))
        imported = await run_job(job, settings.worker_cache, Imported)
        made: Manifest = replace(
            base.manifest,
            id=id,
            source=f"fused:{own}",
            quantization=imported.quantization,
            parameters=imported.parameters,
            installed_at=datetime.now(UTC),
            files=(),
            pulled=None,
            linked=None,
        )
        return store.commit(staging, made)


def _copy(source: Path, staging: Path) -> None:
    if not source.is_dir():
        raise ModelNotFound(f"{source} is not a directory.", hint="Name the adapter's directory.", param="model")
    names = [path.name for path in source.iterdir() if path.is_file()]
    config = adapters.read(_config(source, str(source)), names, str(source))
    for name in (adapters.CONFIG, config.weights):
        shutil.copyfile(inside(source, name), staging / name)


async def _download(given: Given, repo: RepoName, staging: Path, report: Report) -> str:
    """Download what an adapter needs, its settings first; the commit."""
    hub = Hub(given.settings)
    snapshot = await hub.snapshot(repo.repo_id, repo.revision)
    files = {file.path: file for file in snapshot.files}
    if adapters.CONFIG not in files:
        problem = f"{repo.repo_id} has no {adapters.CONFIG}, so it is not an adapter."
        raise UnsupportedModel(problem, hint="Leave --base out to pull a model.", param="--base")
    partial = given.store.partial(given.id)
    wanted = [files[name] for name in (adapters.CONFIG, adapters.PEFT_WEIGHTS, adapters.MLX_WEIGHTS) if name in files]
    remote = tuple(RemoteFile(each.url, each.path, each.size, each.sha256, each.git_blob) for each in wanted)
    download = Download(remote, partial, headers=hub.headers(), policy=given.policy)
    try:
        await download.run((adapters.CONFIG,))
        config = adapters.read(_config(download.directory, repo.repo_id), list(files), repo.repo_id)
        async with Meter(download, report):
            await download.run((config.weights,))
        for name in (adapters.CONFIG, config.weights):
            (download.directory / name).rename(staging / name)
        shutil.rmtree(partial, ignore_errors=True)
    except GatedRepo as error:
        raise hub.gated(repo.repo_id) from error
    except (UnsupportedModel, SquishError) as error:
        if isinstance(error, UnsupportedModel):
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return snapshot.commit


def _config(directory: Path, name: str) -> dict[str, Any]:
    path = directory / adapters.CONFIG
    if not path.is_file():
        raise UnsupportedModel(f"{name} has no {adapters.CONFIG}, so it is not an adapter.", param="--base")
    return read_json(path)


def _take_small_files(base: Installed, staging: Path) -> None:
    """Everything of the model but its weights, under the adapter's own files."""
    for file in base.manifest.files:
        target = staging / file.path
        if file.path.endswith(".safetensors") or file.path == _INDEX or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base.path / file.path, target)
