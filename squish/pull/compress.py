"""Compressing while downloading: shards come in a small window, each is compressed as it arrives and then deleted.

    partial/
        files/ parts/        the download's own; a shard leaves files/ when no weight needs it any more
        headers/             the header of every shard, fetched first: with them the worker knows the whole model
        compressed/          what is written so far, with the worker's account
        compression.json     of what, in which way, and which shards are used up

Everything survives a kill at any point and is taken up by the next run. It knows neither MLX nor the store.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from squish.download.disk import occupied, require_space
from squish.download.file_transfer import first_error
from squish.errors import EngineError, StoreError
from squish.files import write_whole
from squish.format import safetensors
from squish.ipc.frames import Quantized, QuantizeShards, Recipe
from squish.ipc.jobs import Jobs
from squish.models import recipes
from squish.pull.events import CompressionReport
from squish.pull.local_files import ModelFiles

# Shards that may be on disk at once besides those that the model's layout makes wait for another.
_WINDOW = 2


class _Account(msgspec.Struct):
    """Of which commit, with which recipe; consumed: shards that are used up."""

    commit: str
    recipe: Recipe
    text: str = ""
    consumed: list[str] = []
    peak_memory: int = 0
    unmeasured: str = ""


class Compressor:
    """One model on its way: `resume`, then `run`. Shards that are used up are downloaded no more, or kept.

    shards: their sizes in bytes by name; local: they lie on this machine, and take no more room; directory: where the
    compressed model is written; total: bytes of all shards; fraction: how much of them is already compressed.
    """

    def __init__(
        self,
        download: ModelFiles,
        shards: Mapping[str, int],
        partial: Path,
        *,
        commit: str,
        recipe: Recipe,
        keep_source: bool,
        jobs: Jobs,
        text: str = "",
        local: bool = False,
    ) -> None:
        self.directory = partial / "compressed"
        self.total, self.fraction = sum(shards.values()), 0.0
        self._download, self._shards, self._partial = download, shards, partial
        self._keep_source, self._jobs, self._local = keep_source, jobs, local
        self._headers = partial / "headers"
        self._account = _Account(commit, recipe, text)
        # To read with the original, and to weigh matrices against each other, all of it is needed at once.
        whole = recipe.search or recipe.calibrated or recipe.size is not None
        self._at_once = len(shards) if whole else _WINDOW

    def resume(self) -> int:
        """Go on with the account of an earlier run, or start over where that was of something else.

        Bytes of shards that are used up and gone, but are now to be kept: they come again. Raises StoreError.
        """
        with _disk_errors():
            self._take_up_account()
        used = self._account.consumed
        self.fraction = sum(self._shards[path] for path in used) / max(self.total, 1)
        if not self._keep_source:
            for path in used:
                self._download.skip(path)
            return 0
        return sum(self._shards[path] for path in used if not (self._download.directory / path).is_file())

    async def run(self, report: Callable[[str, float], None]) -> CompressionReport:
        """Download and compress what an earlier run has not. report: gets what is done, and how much of it is, in 0..1.

        Raises what downloading and the worker raise.
        """
        with _disk_errors():
            await asyncio.to_thread(self._require_space, await self._fetch_headers())
            await self._convert_all(report)
            after = sum(path.stat().st_size for path in self.directory.glob("*.safetensors"))
        label, largest = recipes.label(self._account.recipe), max(self._shards.values())
        account = self._account
        return CompressionReport(label, self.total, after, largest, account.peak_memory, unmeasured=account.unmeasured)

    def forget_progress(self) -> None:
        """Delete the worker's account of what is written, which does not belong to the model."""
        (self.directory / "progress.json").unlink(missing_ok=True)

    def _take_up_account(self) -> None:
        path = self._partial / "compression.json"
        try:
            known = msgspec.json.decode(path.read_bytes(), type=_Account)
        except (OSError, ValueError, RecursionError):
            known = None
        if known is not None and self._is_mine(known):
            self._account = known
        else:
            for directory in (self._headers, self.directory):
                shutil.rmtree(directory, ignore_errors=True)
            self._save()
        for directory in (self._headers, self.directory):
            directory.mkdir(parents=True, exist_ok=True)

    def _is_mine(self, account: _Account) -> bool:
        same = all(getattr(account, each) == getattr(self._account, each) for each in ("commit", "recipe", "text"))
        return same and self._shards.keys() >= set(account.consumed)

    async def _fetch_headers(self) -> int:
        """The header of every shard is on disk after this; how many numbers all tensors hold."""
        gate = asyncio.Semaphore(8)

        async def fetch(name: str, size: int) -> int:
            path = self._headers / f"{name}.json"
            async with gate:
                if not path.exists():
                    write_whole(path, await self._header(name, size), durable=False)
            return sum(each.count for each in safetensors.parse(path.read_bytes(), name, size))

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(fetch(*shard)) for shard in self._shards.items()]
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        return sum(task.result() for task in tasks)

    async def _header(self, name: str, size: int) -> bytes:
        start = await self._download.piece(name, 0, 64 * 1024)
        length = safetensors.header_length(start, name)
        if len(start) < safetensors.PREFIX + length:
            start += await self._download.piece(name, len(start), safetensors.PREFIX + length)
        header = start[safetensors.PREFIX : safetensors.PREFIX + length]
        safetensors.parse(header, name, size)
        await self._download.keep(name, start)
        return header

    def _require_space(self, count: int) -> None:
        """Room for the result and for the shards of the window, or for all of them where they are kept."""
        result = int(count * recipes.bits_per_weight(self._account.recipe) / 8 * 1.1)
        window = (self._at_once + 1) * max(self._shards.values())
        source = self.total if self._keep_source else min(self.total, window)
        if self._local:
            require_space(self._partial, result - occupied(self.directory))
        else:
            require_space(self._partial, result + source - occupied(self._partial))

    async def _convert_all(self, report: Callable[[str, float], None]) -> None:
        used = self._account.consumed
        if not self._keep_source:
            self._delete(used)
        wanted = [path for path in self._shards if self._keep_source or path not in used]
        arrived, window = asyncio.Queue[str](), asyncio.Semaphore(self._at_once)
        try:
            async with asyncio.TaskGroup() as group:
                for path in wanted:
                    group.create_task(self._fetch(path, arrived, window))
                group.create_task(self._convert(len(wanted), arrived, window, report))
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    async def _fetch(self, path: str, arrived: asyncio.Queue[str], window: asyncio.Semaphore) -> None:
        """Get a shard when the window has room, which it has again once the worker has seen the shard."""
        await window.acquire()
        await self._download.run((path,))
        arrived.put_nowait(path)

    async def _convert(
        self,
        expected: int,
        arrived: asyncio.Queue[str],
        window: asyncio.Semaphore,
        report: Callable[[str, float], None],
    ) -> None:
        """Compress shards as they arrive, until so many have."""
        here: set[str] = set()
        seen, complete = 0, False
        if not self._account.consumed or not expected:
            # What does not fit together is refused while the first shard is still on its way.
            complete = (await self._step(here, report)).complete
        while seen < expected:
            batch = [await arrived.get()]
            while not arrived.empty():
                batch.append(arrived.get_nowait())
            here.update(batch)
            result = await self._step(here, report)
            complete = result.complete
            self._account.consumed = sorted({*self._account.consumed, *result.consumed})
            self._account.peak_memory = max(self._account.peak_memory, result.peak_memory)
            self._account.unmeasured = result.unmeasured
            self._save()
            here.difference_update(result.consumed)
            if not self._keep_source:
                self._delete(result.consumed)
            seen += len(batch)
            for _ in batch:
                window.release()
        if not complete:
            raise EngineError("The compression ended although weights are missing.")

    async def _step(self, here: set[str], report: Callable[[str, float], None]) -> Quantized:
        """Have a worker compress what the shards that are here make possible."""
        job = QuantizeShards(
            source=str(self._download.directory),
            headers=str(self._headers),
            destination=str(self.directory),
            arrived=tuple(sorted(here)),
            recipe=self._account.recipe,
            text=self._account.text,
        )
        return await self._jobs.run(job, Quantized, lambda progress: report(progress.phase, progress.fraction))

    def _delete(self, shards: Iterable[str]) -> None:
        for path in shards:
            (self._download.directory / path).unlink(missing_ok=True)

    def _save(self) -> None:
        write_whole(self._partial / "compression.json", msgspec.json.encode(self._account), durable=False)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"The model cannot be compressed: {error.strerror or error}.") from error
