"""From the Hub to files that can be installed: config.json first, then what it allows, compressed where asked.

It downloads into the store's partial directory, so that everything is taken up again. It commits nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from squish import figures
from squish.config.model_defaults import kv_bits_of
from squish.download.remote_file import Downloaded, RemoteFile
from squish.download.transfer import Download
from squish.errors import GatedRepo, InvalidInput, UnsupportedModel
from squish.format import adapters, embedding
from squish.format.config import context_length
from squish.hub.client import Hub, HubFile, Snapshot
from squish.ipc.frames import Recipe
from squish.ipc.jobs import Jobs
from squish.memory import fit, machine
from squish.models import recipes
from squish.models.manifest import StoredFile
from squish.names import RepoName
from squish.pull import adapter, beginning, eligible, local_files
from squish.pull.compress import Compressor
from squish.pull.events import CompressionReport, Notice, Report
from squish.pull.local_files import LocalFiles, ModelFiles
from squish.pull.measure import measure
from squish.pull.order import Order
from squish.pull.progress import Meter
from squish.pull.repository import choose, is_weights
from squish.pull.sources import inside

_LARGEST_SMALL_FILE = 64 * 1024 * 1024
_SMALL_FILES = (eligible.CONFIG, eligible.TOKENIZER_CONFIG, eligible.INDEX, eligible.MODULES)


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """Files of a model that lie ready: a directory, or one GGUF file. checked: those whose hashes are right."""

    path: Path
    checked: tuple[StoredFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched: with its snapshot from the Hub, and with None out of a directory.

    original: the full precision that a compressed model was made of, where it is kept.
    """

    snapshot: Snapshot | None
    model: FetchedModel
    compression: CompressionReport | None = None
    original: FetchedModel | None = None


@dataclass(frozen=True, slots=True)
class _Repository:
    """The repository that is being fetched, and the files of it that are taken. local: it is a directory."""

    snapshot: Snapshot
    files: tuple[HubFile, ...]
    download: ModelFiles
    partial: Path
    local: bool = False

    @property
    def id(self) -> str:
        return self.snapshot.repo_id

    @property
    def names(self) -> frozenset[str]:
        return frozenset(file.path for file in self.files)

    def content(self, name: str) -> bytes | None:
        """What a small file says that was downloaded, None where there is none."""
        path = self.download.directory / name
        return path.read_bytes() if path.is_file() else None


async def fetch(order: Order, repo: RepoName, partial: Path, report: Report, jobs: Jobs) -> Fetched:
    """Download a repository into the directory `partial`, and compress it where the order asks for that.

    Raises the SquishErrors of the Hub, of downloading and of the worker.
    """
    hub = Hub(order.settings)
    snapshot = await hub.snapshot(repo.repo_id, repo.revision)
    if adapters.is_adapter([file.path for file in snapshot.files]):
        raise adapter.without_base(repo.repo_id, {})
    files = choose(snapshot, repo.tag)
    remote = tuple(RemoteFile(each.url, each.path, each.size, each.sha256, each.git_blob) for each in files)
    download = Download(remote, partial, headers=hub.headers(), policy=order.policy)
    await asyncio.to_thread(download.prepare)
    repository = _Repository(snapshot, files, download, partial)
    try:
        if all(file.path.lower().endswith(".gguf") for file in files):
            return await _fetch_gguf(order, repository, report, jobs)
        config = await _judge(repository)
        recipe = await _choose_recipe(order, config, repository, report)
        if recipe is None or order.compression.keep_source:  # compressing alone goes by the weights that there are
            await download.run((eligible.INDEX,))
            eligible.require_shards(repository.content(eligible.INDEX), repository.names, repository.id)
        if recipe is None:
            return await _fetch_as_it_is(repository, report)
        return await _fetch_compressed(order, repository, config, recipe, report, jobs)
    except GatedRepo as error:
        raise hub.gated(repository.id) from error


async def compress_directory(order: Order, source: Path, partial: Path, report: Report, jobs: Jobs) -> Fetched:
    """Compress the model in a directory of this machine as one that comes from the Hub.

    Raises UnsupportedModel, InvalidInput, CorruptModel, StoreError, and the SquishErrors of the worker.
    """
    snapshot = await asyncio.to_thread(local_files.snapshot, source)
    if not any(is_weights(file.path) for file in snapshot.files):
        problem = f"{source} has no .safetensors weights that could be compressed."
        raise InvalidInput(problem, hint="Leave --bits, --search, --calibrate and --measure out.", param="--bits")
    files = choose(snapshot, None)
    here = LocalFiles({file.path: inside(source, file.path) for file in files}, partial)
    await asyncio.to_thread(here.prepare)
    repository = _Repository(snapshot, files, here, partial, local=True)
    try:
        config = await _judge(repository)
        recipe = await _choose_recipe(order, config, repository, report)
        await here.run((eligible.INDEX,))
        eligible.require_shards(repository.content(eligible.INDEX), repository.names, repository.id)
    except UnsupportedModel as error:
        raise UnsupportedModel(error.message, param=error.param) from error
    assert recipe is not None, "an order says for a directory that it is to be compressed"
    return await _fetch_compressed(order, repository, config, recipe, report, jobs)


async def _fetch_gguf(order: Order, repository: _Repository, report: Report, jobs: Jobs) -> Fetched:
    """Download a model in one GGUF file or in several, of which the first says what it is."""
    options, download, file = order.compression, repository.download, repository.files[0]
    if options.explicit and options.recipe is not None and not order.is_tagged:
        raise InvalidInput(f"{file.path} is already compressed.", hint="Leave --bits out.", param="--bits")
    await beginning.judge(download, repository.files, repository.partial, repository.id, jobs)
    async with Meter(download, report):
        await download.run()
    return Fetched(repository.snapshot, FetchedModel(download.directory / file.path))


async def _judge(repository: _Repository) -> dict[str, Any]:
    """config.json, downloaded with other small files before anything else. Raises UnsupportedModel, CorruptModel."""
    for file in repository.files:
        if file.path in _SMALL_FILES and file.size > _LARGEST_SMALL_FILE:
            problem = (
                f"{file.path} of {repository.id} has {figures.size(file.size)}, too large to be what its name says."
            )
            raise UnsupportedModel(problem, param="model")
    await repository.download.run((eligible.CONFIG, eligible.TOKENIZER_CONFIG, eligible.MODULES))
    config = eligible.read_config(repository.content(eligible.CONFIG), repository.id)
    modules = repository.content(eligible.MODULES)
    eligible.require(config, repository.id, modules)
    if modules is not None:
        steps = [name for name in repository.names if name.endswith("/config.json")]
        await repository.download.run((*steps, *eligible.OF_STEPS))
        eligible.require_steps(repository.content, repository.id)
    eligible.require_tokenizer(repository.content(eligible.TOKENIZER_CONFIG), repository.names, repository.id)
    return config


async def _choose_recipe(
    order: Order, config: dict[str, Any], repository: _Repository, report: Report
) -> Recipe | None:
    """How to compress, with the size that fits where that is asked for; None to take the files as they are.

    Raises InvalidInput where compressing cannot be done.
    """
    recipe = _asked_recipe(order, config, repository)
    if recipe is None or not recipe.fit:
        return recipe
    size, context = await asyncio.to_thread(_fitted, order, config, repository)
    report(Notice(f"{size:g} bits a weight: the most that fits this machine with {context:,} tokens."))
    return recipes.sized(recipe, size)


def _asked_recipe(order: Order, config: dict[str, Any], repository: _Repository) -> Recipe | None:
    """How to compress, None to take the files as they are. Raises InvalidInput where compressing cannot be done.

    An embedding model is small and its vectors lose by it, so it is compressed only where that was asked for.
    """
    options = order.compression
    if embedding.kind_of(config, repository.content(eligible.MODULES)) != "chat":
        if options.measure:
            problem = f"{repository.id} is an embedding model; only a model that writes can read a text to be measured."
            raise InvalidInput(problem, hint="Leave --measure out.", param="--measure")
        if options.recipe is not None and options.recipe.calibrated:
            problem = f"{repository.id} is an embedding model; only a model that writes can be calibrated."
            raise InvalidInput(problem, hint="Leave --calibrate out.", param="--calibrate")
        if not options.explicit:
            return None
    found = config.get("quantization") or config.get("quantization_config")
    if found is None and isinstance(config.get("text_config"), dict):
        found = config["text_config"].get("quantization_config")
    if not found:
        return options.recipe
    if options.explicit and options.recipe is not None:
        details = found if isinstance(found, dict) else {}
        how = f"{details['bits']}-bit" if "bits" in details else str(details.get("quant_method", "packed"))
        raise InvalidInput(
            f"{repository.id} is already quantized ({how}); it cannot be compressed again.",
            hint="Leave --bits out to take it as it is, or name a repository with full precision.",
            param="--bits",
        )
    return None


def _fitted(order: Order, config: dict[str, Any], repository: _Repository) -> tuple[float, int]:
    """The most bits a weight that fit this machine, and for how many tokens. Raises InvalidInput where none do."""
    parameters = sum(file.size for file in repository.files if is_weights(file.path)) // _bytes_per_weight(config)
    kv_bits = kv_bits_of(order.settings, str(order.id))
    here, shape = replace(machine.read(), kv_bits=kv_bits), fit.shape_of(config, parameters)
    context = order.compression.context or min(fit.USUAL_CONTEXT, context_length(config))
    found = fit.most_bits(shape, context, here, recipes.SMALLEST, recipes.LARGEST)
    if found is None:
        needs = fit.estimate(shape, int(parameters * recipes.SMALLEST / 8), context, here).needed
        problem = (
            f"{repository.id} does not fit this machine with {context:,} tokens: with the fewest bits it needs "
            f"{figures.size(needs)}, and there are {figures.size(here.total)} of {here.kind}."
        )
        raise InvalidInput(problem, hint="A shorter --context, or a smaller model, fits.", param="--bits")
    return found, context


async def _fetch_as_it_is(repository: _Repository, report: Report) -> Fetched:
    async with Meter(repository.download, report):
        downloaded = await repository.download.run()
    return Fetched(repository.snapshot, FetchedModel(repository.download.directory, _stored(downloaded)))


async def _fetch_compressed(
    order: Order, repository: _Repository, config: dict[str, Any], recipe: Recipe, report: Report, jobs: Jobs
) -> Fetched:
    options, download = order.compression, repository.download
    compressor = Compressor(
        download,
        {file.path: file.size for file in repository.files if is_weights(file.path)},
        repository.partial,
        commit=repository.snapshot.commit,
        recipe=recipe,
        keep_source=options.keep_source or options.measure,
        jobs=jobs,
        text=options.text,
        local=repository.local,
    )
    rest = [name for name in repository.names if not is_weights(name) and not name.endswith(".index.json")]
    if not options.keep_source:
        for name in repository.names:
            if name.endswith(".index.json"):
                download.skip(name)  # it lists the original's files and is not needed: the download ends without it
    for text in await _warnings(repository, recipe, compressor.total // _bytes_per_weight(config)):
        report(Notice(text))
    if lost := await asyncio.to_thread(compressor.resume):
        text = f"{figures.size(lost)} that were already compressed are downloaded again"
        report(Notice(f"{text}: {options.compress_only_flag} needs the original."))
    if repository.local:
        await download.run(rest)
    else:
        async with Meter(download, report):
            await download.run(rest)
    async with Meter(download, report, to_convert=compressor.total, fraction=compressor.fraction) as meter:
        compression = await compressor.run(meter.converted)
    for name in rest:
        if name != eligible.CONFIG:
            _link(download.directory / name, compressor.directory / name)
    if options.measure:
        compression = await measure(download.directory, compressor.directory, compression, order.settings, report)
    compressor.forget_progress()
    original = None
    if options.keep_source:
        async with Meter(download, report):  # the index and what else belongs to the original
            original = FetchedModel(download.directory, _stored(await download.run()))
    snapshot = None if repository.local else repository.snapshot
    return Fetched(snapshot, FetchedModel(compressor.directory), compression, original)


async def _warnings(repository: _Repository, recipe: Recipe, parameters: int) -> list[str]:
    """What the user should know of a compression before it begins."""
    found = [f"{repository.id} has full precision: it is compressed to {recipes.label(recipe)}."]
    here = await asyncio.to_thread(machine.read)
    if here.float32 and not here.packed:
        found.append("Without a GPU or a C compiler weights become float32: fewer bits save disk, not memory.")
    if warning := recipes.warning(recipe, parameters, None if repository.local else repository.id):
        found.append(warning)
    return found


def _bytes_per_weight(config: dict[str, Any]) -> int:
    """As config.json names the format of the numbers."""
    return 4 if "float32" in (config.get("torch_dtype"), config.get("dtype")) else 2


def _stored(files: tuple[Downloaded, ...]) -> tuple[StoredFile, ...]:
    return tuple(StoredFile(each.path, each.size, each.sha256) for each in files)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a model's files are never changed."""
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    target.hardlink_to(source)
