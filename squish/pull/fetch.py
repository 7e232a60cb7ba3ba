"""From the Hub to a directory that can be committed: config.json first, then what it allows, compressed where asked.

It downloads into the store's partial directory, so that everything is taken up again. It commits nothing.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from squish import console
from squish.config.settings import Settings
from squish.download.remote_file import Downloaded, RemoteFile
from squish.download.transfer import Download, Policy
from squish.errors import CorruptModel, EngineError, GatedRepo, InvalidInput
from squish.hub.client import Hub, HubFile, Snapshot
from squish.ipc.frames import InspectModel, Measured, MeasurePerplexity, Recipe
from squish.ipc.process import run_job
from squish.memory import machine
from squish.models import recipes
from squish.models.store import StoredFile
from squish.names import RepoName
from squish.pull import eligible
from squish.pull.compress import Compressed, Compression
from squish.pull.events import CompressionReport, Notice, Phase, Progress, StepEvent
from squish.pull.sources import choose

_TICK = 0.1
_SETTLED = 0.5  # seconds after which a speed says something
# Enough for the vocabulary that most GGUF headers carry.
_GGUF_HEAD = 16 * 1024 * 1024
_TEXT = Path(__file__).parent / "perplexity.txt"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What lies ready. gguf: a file to import; else directory is a model. known: files whose hashes are checked.

    source: the directory with the original files, where it is kept.
    """

    snapshot: Snapshot
    directory: Path
    known: tuple[StoredFile, ...] = ()
    gguf: Path | None = None
    report: CompressionReport | None = None
    source: Path | None = None
    source_known: tuple[StoredFile, ...] = ()


class Fetch:
    """One download from the Hub. `run` yields progress; then `result` is there."""

    def __init__(
        self,
        repo: RepoName,
        partial: Path,
        settings: Settings,
        wanted: recipes.Compression,
        policy: Policy | None,
    ) -> None:
        self._repo, self._partial, self._settings = repo, partial, settings
        self._wanted, self._policy = wanted, policy
        self._hub = Hub(settings)
        self._seen: tuple[Downloaded, ...] = ()
        self._measurement: CompressionReport | None = None
        self.result: Fetched | None = None

    async def run(self) -> AsyncGenerator[StepEvent]:
        """Raises the SquishErrors of the Hub, of downloading and of the worker."""
        repo_id = self._repo.repo_id
        snapshot = await asyncio.to_thread(self._hub.snapshot, repo_id, self._repo.revision)
        chosen = choose(snapshot, self._repo.tag)
        files = tuple(RemoteFile(f.url, f.path, f.size, f.sha256, f.git_blob) for f in chosen)
        headers = await asyncio.to_thread(self._hub.headers)
        download = Download(files, self._partial, headers=headers, policy=self._policy)
        await asyncio.to_thread(download.prepare)
        try:
            if _is_gguf(chosen):
                steps = self._gguf(snapshot, chosen, download)
            else:
                config, recipe = await self._judged(download, chosen)
                if recipe is None:
                    steps = self._as_it_is(snapshot, download)
                else:
                    steps = self._compressed(snapshot, files, download, config, recipe)
            async with aclosing(steps):
                async for event in steps:
                    yield event
        except GatedRepo as error:
            raise await asyncio.to_thread(self._hub.gated, repo_id) from error

    async def _gguf(
        self, snapshot: Snapshot, chosen: tuple[HubFile, ...], download: Download
    ) -> AsyncGenerator[StepEvent]:
        if self._wanted.asked and self._wanted.recipe is not None:
            raise InvalidInput(f"{chosen[0].path} is compressed already.", hint="Leave --bits out.", param="--bits")
        await self._refuse_early(download, chosen[0])
        async for event in self._downloading(download, None):
            yield event
        self.result = Fetched(snapshot, download.directory, gguf=download.directory / chosen[0].path)

    async def _refuse_early(self, download: Download, file: HubFile) -> None:
        """Judge a large GGUF file by its beginning, before the rest is sent. Raises UnsupportedModel."""
        if file.size < 4 * _GGUF_HEAD:
            return
        start = await download.head(file.path, _GGUF_HEAD)
        with tempfile.TemporaryDirectory(dir=self._partial) as directory:
            path = Path(directory) / "head.gguf"
            path.write_bytes(start)
            os.truncate(path, file.size)  # a hole: it takes no room on disk
            try:
                async for _ in run_job(InspectModel(path=str(path)), self._settings.worker_cache):
                    pass
            except CorruptModel:  # its header is longer than what we have of it
                return

    async def _judged(self, download: Download, chosen: tuple[HubFile, ...]) -> tuple[dict[str, Any], Recipe | None]:
        """config.json, downloaded with other small files before anything else, and the recipe to compress with.

        Raises UnsupportedModel, InvalidInput.
        """
        repo_id, names = self._repo.repo_id, frozenset(file.path for file in chosen)
        await download.run((eligible.CONFIG, eligible.TOKENIZER_CONFIG))

        def content(name: str) -> bytes | None:
            path = download.directory / name
            return path.read_bytes() if path.is_file() else None

        config = eligible.read_config(content(eligible.CONFIG), repo_id)
        eligible.require(config, repo_id)
        eligible.require_tokenizer(content(eligible.TOKENIZER_CONFIG), names, repo_id)
        recipe = _recipe(config, self._wanted, repo_id)
        if recipe is None or self._wanted.keep_source:  # compressing alone goes by the weights that there are
            await download.run((eligible.INDEX,))
            eligible.require_shards(content(eligible.INDEX), names, repo_id)
        return config, recipe

    async def _as_it_is(self, snapshot: Snapshot, download: Download) -> AsyncGenerator[StepEvent]:
        async for event in self._downloading(download, None):
            yield event
        self.result = Fetched(snapshot, download.directory, _stored(self._seen))

    async def _compressed(
        self,
        snapshot: Snapshot,
        files: tuple[RemoteFile, ...],
        download: Download,
        config: dict[str, Any],
        recipe: Recipe,
    ) -> AsyncGenerator[StepEvent]:
        shards = tuple(file for file in files if file.path.endswith(".safetensors"))
        rest = tuple(file.path for file in files if file not in shards and not file.path.endswith(".index.json"))
        for notice in await self._notices(sum(shard.size for shard in shards) // _width(config), recipe):
            yield notice
        keep = self._wanted.keep_source or self._wanted.measure
        work = Compression(
            download,
            shards,
            self._partial,
            commit=snapshot.commit,
            recipe=recipe,
            keep_source=keep,
            worker_cache=self._settings.worker_cache,
        )
        for notice in await self._taken_up(work):
            yield notice
        async for event in self._downloading(download, rest):
            yield event
        task = asyncio.create_task(work.run())
        try:
            async for event in _watch(download, task, work):
                yield event
            done = task.result()
        finally:
            await _cancelled(task)
        for path in rest:
            if path != "config.json":
                await asyncio.to_thread(_link, download.directory / path, done.directory / path)
        report = _report(done, recipe)
        if self._wanted.measure:
            async for step in self._measured(download.directory, done.directory, report):
                yield step
            report = self._measurement or report
        (done.directory / "progress.json").unlink(missing_ok=True)
        source = download.directory if self._wanted.keep_source else None
        if source is not None:  # the index and what else belongs to the original
            async for event in self._downloading(download, None):
                yield event
        self.result = Fetched(snapshot, done.directory, report=report, source=source, source_known=_stored(self._seen))

    async def _notices(self, parameters: int, recipe: Recipe) -> list[Notice]:
        """What the user should know of a compression before it begins."""
        found = [Notice(f"{self._repo.repo_id} has full precision: it is compressed to {recipes.label(recipe)}.")]
        here = await asyncio.to_thread(machine.read)
        if here.float32 and not here.packed:
            text = "Without a GPU or a C compiler weights become float32: fewer bits save disk, not memory."
            found.append(Notice(text))
        if warning := recipes.warning(recipe, parameters, self._repo.repo_id):
            found.append(Notice(warning))
        return found

    async def _taken_up(self, work: Compression) -> list[Notice]:
        """Go on with what an earlier pull left; what the user should know of that."""
        again = await asyncio.to_thread(work.take_up)
        if not again:
            return []
        text = f"{console.size(again)} that were compressed already are downloaded again"
        return [Notice(f"{text}: {self._wanted.only} needs the original.")]

    async def _measured(self, before: Path, after: Path, report: CompressionReport) -> AsyncGenerator[StepEvent]:
        """Perplexity of both on the bundled text; a model that cannot be measured, for want of memory say, is not."""
        text = _TEXT.read_text(encoding="utf-8")
        found: list[Measured | None] = []
        for number, directory in enumerate((before, after)):
            yield Progress("measure", number, 2)
            try:
                found.append(await self._perplexity(directory, text))
            except (EngineError, CorruptModel) as error:
                found.append(None)
                yield Notice(f"Perplexity was not measured: {error.message}")
        yield Progress("measure", 2, 2)
        before_it, after_it = (None if each is None else each.perplexity for each in found)
        peak = max((each.peak_memory for each in found if each is not None), default=None)
        self._measurement = replace(report, perplexity_before=before_it, perplexity_after=after_it, measure_memory=peak)

    async def _perplexity(self, directory: Path, text: str) -> Measured | None:
        events = run_job(MeasurePerplexity(path=str(directory), text=text), self._settings.worker_cache)
        try:
            async for event in events:
                if isinstance(event, Measured):
                    return event
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()
        return None

    async def _downloading(self, download: Download, only: tuple[str, ...] | None) -> AsyncGenerator[Progress]:
        task = asyncio.create_task(download.run(only))
        try:
            async for progress in _watch(download, task):
                yield progress
            self._seen = task.result()
        finally:
            await _cancelled(task)


class _Counter(Protocol):
    @property
    def done(self) -> int: ...

    total: int


async def _watch(
    download: Download, task: asyncio.Task[Any], conversion: _Counter | None = None
) -> AsyncGenerator[Progress]:
    """The progress of a download, and of a conversion that follows it. The speed is that of the last seconds.

    What an earlier run left counts as done, not as speed.
    """
    loop = asyncio.get_running_loop()
    seen: deque[tuple[float, int]] = deque(maxlen=50)
    while True:
        ended = task.done()
        arriving = download.done < download.total or conversion is None
        phase: Phase = "download" if arriving else "compress"
        counter: _Counter = download if arriving or conversion is None else conversion
        seen.append((loop.time(), download.received))
        (first, before), (last, now) = seen[0], seen[-1]
        speed = (now - before) / (last - first) if arriving and last - first > _SETTLED and now > before else None
        eta = (download.total - download.done) / speed if speed else None
        yield Progress(phase, counter.done, counter.total, speed, eta)
        if ended:
            return
        await asyncio.wait({task}, timeout=_TICK)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """End a task and wait for it, whatever it ends with."""
    task.cancel()
    await asyncio.wait({task})


def _is_gguf(chosen: tuple[HubFile, ...]) -> bool:
    return len(chosen) == 1 and chosen[0].path.lower().endswith(".gguf")


def _width(config: dict[str, Any]) -> int:
    """Bytes of a number, as config.json names its format."""
    return 4 if "float32" in (config.get("torch_dtype"), config.get("dtype")) else 2


def _recipe(config: dict[str, Any], wanted: recipes.Compression, repo_id: str) -> Recipe | None:
    """How to compress, None to take the files as they are. Raises InvalidInput where compressing cannot be done."""
    found = config.get("quantization") or config.get("quantization_config")
    if found is None and isinstance(config.get("text_config"), dict):
        found = config["text_config"].get("quantization_config")
    if not found:
        return wanted.recipe
    if wanted.asked and wanted.recipe is not None:
        details = found if isinstance(found, dict) else {}
        how = f"{details['bits']}-bit" if "bits" in details else str(details.get("quant_method", "packed"))
        raise InvalidInput(
            f"{repo_id} is quantized already ({how}); it cannot be compressed again.",
            hint="Leave --bits out to take it as it is, or name a repository with full precision.",
            param="--bits",
        )
    return None


def _report(done: Compressed, recipe: Recipe) -> CompressionReport:
    return CompressionReport(recipes.label(recipe), done.before, done.after, done.largest_shard, done.peak_memory)


def _stored(files: tuple[Downloaded, ...]) -> tuple[StoredFile, ...]:
    return tuple(StoredFile(each.path, each.size, each.sha256) for each in files)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a model's files are never changed."""
    target.unlink(missing_ok=True)
    target.hardlink_to(source)
