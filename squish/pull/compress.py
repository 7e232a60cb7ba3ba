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
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from squish.download.remote_file import RemoteFile
from squish.download.transfer import Download, first_error, occupied, require_space
from squish.errors import EngineError, StoreError
from squish.format import safetensors
from squish.ipc.frames import JobProgress, Quantized, QuantizeShards, Recipe
from squish.ipc.process import run_job
from squish.models import recipes

# Shards that may be on disk at once besides those that the model's layout makes wait for another.
_WINDOW = 2


class _Account(msgspec.Struct):
    """Of which commit, with which recipe; consumed: shards that are used up."""

    commit: str
    recipe: Recipe
    consumed: list[str] = []
    peak_memory: int = 0


@dataclass(frozen=True, slots=True)
class Compressed:
    """before and after: bytes of the weights; largest_shard and peak_memory of the worker in bytes."""

    directory: Path
    before: int
    after: int
    largest_shard: int
    peak_memory: int


class Compression:
    """One model on its way. `done` and `total` count bytes of shards that are compressed."""

    def __init__(
        self,
        download: Download,
        shards: tuple[RemoteFile, ...],
        partial: Path,
        *,
        commit: str,
        recipe: Recipe,
        keep_source: bool,
        worker_cache: Path,
    ) -> None:
        self._download, self._partial, self._worker_cache = download, partial, worker_cache
        self._shards = {shard.path: shard for shard in shards}
        self._keep_source = keep_source
        self._headers, self.directory = partial / "headers", partial / "compressed"
        self._account = _Account(commit, recipe)
        self._arrived: asyncio.Queue[str] = asyncio.Queue()
        self._window = asyncio.Semaphore(_WINDOW)
        self.total = sum(shard.size for shard in shards)
        self.fraction = 0.0

    @property
    def done(self) -> int:
        return int(self.total * self.fraction)

    async def run(self) -> Compressed:
        """After `take_up`, download and compress what an earlier run has not.

        Raises what downloading and the worker raise.
        """
        try:
            counts = await self._fetch_headers()
            self._require_space(counts)
            await self._convert_all()
            after = sum(path.stat().st_size for path in self.directory.glob("*.safetensors"))
        except OSError as error:
            raise StoreError(f"The model cannot be compressed: {error.strerror or error}.") from error
        largest = max(shard.size for shard in self._shards.values())
        return Compressed(self.directory, self.total, after, largest, self._account.peak_memory)

    def take_up(self) -> int:
        """Go on with the account of an earlier run, or begin anew where that was of something else. To be called first.

        Bytes of shards that are used up and gone, but are now to be kept: they come again.
        """
        try:
            self._go_on()
        except OSError as error:
            raise StoreError(f"The model cannot be compressed: {error.strerror or error}.") from error
        used = [self._shards[path] for path in self._account.consumed]
        self.fraction = sum(shard.size for shard in used) / max(self.total, 1)
        if not self._keep_source:
            for shard in used:
                self._download.skip(shard.path)
            return 0
        return sum(shard.size for shard in used if not (self._download.directory / shard.path).is_file())

    def _go_on(self) -> None:
        path = self._partial / "compression.json"
        try:
            known = msgspec.json.decode(path.read_bytes(), type=_Account)
        except (OSError, msgspec.DecodeError):
            known = None
        if known is not None and (known.commit, known.recipe) == (self._account.commit, self._account.recipe):
            self._account = known
        else:
            for directory in (self._headers, self.directory):
                shutil.rmtree(directory, ignore_errors=True)
            self._save()
        for directory in (self._headers, self.directory):
            directory.mkdir(parents=True, exist_ok=True)

    async def _fetch_headers(self) -> int:
        """The header of every shard is on disk after this; how many numbers all tensors hold."""
        gate = asyncio.Semaphore(8)

        async def fetch(shard: RemoteFile) -> int:
            path = self._headers / f"{shard.path}.json"
            async with gate:
                if not path.exists():
                    header = await self._header(shard)
                    partial = path.with_suffix(".new")
                    partial.write_bytes(header)
                    partial.replace(path)
            return sum(each.count for each in safetensors.parse(path.read_bytes(), shard.path, shard.size))

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(fetch(shard)) for shard in self._shards.values()]
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        return sum(task.result() for task in tasks)

    async def _header(self, shard: RemoteFile) -> bytes:
        start = await self._download.head(shard.path, 64 * 1024)
        length = safetensors.header_length(start, shard.path)
        if len(start) < safetensors.PREFIX + length:
            start = await self._download.head(shard.path, safetensors.PREFIX + length)
        header = start[safetensors.PREFIX : safetensors.PREFIX + length]
        safetensors.parse(header, shard.path, shard.size)
        return header

    def _require_space(self, count: int) -> None:
        """Room for the result and for the shards of the window, or for all of them where they are kept."""
        result = int(count * recipes.bits_per_weight(self._account.recipe) / 8 * 1.1)
        sizes = [shard.size for shard in self._shards.values()]
        source = self.total if self._keep_source else min(self.total, (_WINDOW + 1) * max(sizes))
        require_space(self._partial, result + source - occupied(self._partial))

    async def _convert_all(self) -> None:
        waiting = [path for path in self._shards if path not in self._account.consumed]
        for path in self._account.consumed:
            if not self._keep_source:
                (self._download.directory / path).unlink(missing_ok=True)
        fetched = list(self._shards) if self._keep_source else waiting
        try:
            async with asyncio.TaskGroup() as group:
                for path in fetched:
                    group.create_task(self._fetch(path))
                group.create_task(self._convert(len(fetched)))
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    async def _fetch(self, path: str) -> None:
        """Get a shard when the window has room, which it has again once the worker has seen the shard."""
        await self._window.acquire()
        await self._download.run((path,))
        self._arrived.put_nowait(path)

    async def _convert(self, expected: int) -> None:
        here: set[str] = set()
        seen, complete = 0, False
        if not self._account.consumed or not expected:
            # What does not fit together is refused while the first shard is still on its way.
            complete = (await self._step(here)).complete
        while seen < expected:
            batch = [await self._arrived.get()]
            while not self._arrived.empty():
                batch.append(self._arrived.get_nowait())
            here.update(batch)
            result = await self._step(here)
            complete = result.complete
            self._account.consumed = sorted({*self._account.consumed, *result.consumed})
            self._account.peak_memory = max(self._account.peak_memory, result.peak_memory)
            self._save()
            for path in result.consumed:
                here.discard(path)
                if not self._keep_source:
                    (self._download.directory / path).unlink(missing_ok=True)
            seen += len(batch)
            for _ in batch:
                self._window.release()
        if not complete:
            raise EngineError("The compression ended although weights are missing.")

    async def _step(self, here: set[str]) -> Quantized:
        job = QuantizeShards(
            source=str(self._download.directory),
            headers=str(self._headers),
            destination=str(self.directory),
            arrived=tuple(sorted(here)),
            recipe=self._account.recipe,
        )
        events = run_job(job, self._worker_cache)
        try:
            async for event in events:
                if isinstance(event, Quantized):
                    return event
                if isinstance(event, JobProgress):
                    self.fraction = event.fraction
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()
        raise EngineError("The compression ended without a result.")

    def _save(self) -> None:
        path = self._partial / "compression.json"
        partial = path.with_suffix(".new")
        partial.write_bytes(msgspec.json.encode(self._account))
        partial.replace(path)
