"""Downloads a list of files by resumable ranged requests, and checks every byte.

A file is written to `parts/NAME.part` with a sidecar `parts/NAME.json` (its ETag, expected size and hash), and moves to
`files/NAME` when size and hash are right. Both survive Ctrl-C, kill -9 and a lost network: the next run asks for the
rest only. It knows URLs and hashes, not models and not the Hub; one file is file_transfer.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from squish.download.disk import in_thread, occupied, require_space
from squish.download.file_transfer import FileTransfer, broke_off, first_error
from squish.download.part_file import PartFile
from squish.download.patience import Interrupted, Policy
from squish.download.remote_file import Downloaded, RemoteFile, bytes_from_start, bytes_on_disk
from squish.download.request import Pace, file_response
from squish.errors import HubError, StoreError

if TYPE_CHECKING:
    from httpx2 import AsyncClient


class Download:
    """One download of a list of files into `directory`/files. `done` and `total` count bytes while `run` runs.

    received: bytes that this run has written; what an earlier one left is in `done` only.
    """

    def __init__(
        self,
        files: tuple[RemoteFile, ...],
        directory: Path,
        *,
        headers: Mapping[str, str] | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.directory = directory / "files"
        self.total = sum(file.size for file in files)
        self.received = 0
        self._files = {file.path: file for file in files}
        self._parts = directory / "parts"
        self._headers = dict(headers or {})
        self._policy = policy or Policy()
        self._gate = asyncio.Semaphore(self._policy.connections)
        self._counts = dict.fromkeys(self._files, 0)
        self._prepared = False

    @property
    def done(self) -> int:
        """Bytes on disk, those of an earlier run counted."""
        return sum(self._counts.values())

    async def run(self, only: Collection[str] | None = None) -> tuple[Downloaded, ...]:
        """Download what is missing of the files, or of those named by path; several calls may run at once.

        Raises HubUnreachable, GatedRepo, HubError, CorruptModel, StoreError.
        """
        try:
            self.prepare()
            files = [file for path, file in self._files.items() if only is None or path in only]
            if only is None:
                missing = self.total - occupied(self.directory) - occupied(self._parts)
                await asyncio.to_thread(require_space, self.directory, missing)  # macOS takes its time to say
            async with self._client() as client, asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._fetch(client, file)) for file in files]
            return tuple(task.result() for task in tasks)
        except OSError as error:
            raise StoreError(f"The download cannot be written: {error.strerror or error}.") from error
        except BaseExceptionGroup as group_error:
            raise first_error(group_error) from None

    async def piece(self, path: str, start: int, end: int) -> bytes:
        """Bytes of a file: of what is on disk where they are there, else of the server. No hash checks them.

        Raises what `run` raises.
        """
        self.prepare()
        file = self._files[path]
        part, end = self._part_path(path), min(end, file.size)
        if start >= end:
            return b""
        target = self.directory / path
        whole = target.is_file() and target.stat().st_size == file.size
        if whole or bytes_from_start(file, part, self._sidecar(path)) >= end:
            with (target if whole else part).open("rb") as stream:
                stream.seek(start)
                return stream.read(end - start)
        failures = 0
        async with self._client() as client:
            while True:
                try:
                    return await self._bytes(client, file, start, end)
                except Interrupted as error:
                    failures += 1
                    if failures >= self._policy.attempts:
                        raise broke_off(path, error) from error
                    await asyncio.sleep(self._policy.delay(failures, error.wait))

    async def keep(self, path: str, beginning: bytes) -> None:
        """Take up the first bytes of a file, which `piece` has brought, so that `run` asks for the rest only.

        Raises StoreError.
        """
        self.prepare()
        file = self._files[path]
        if (self.directory / path).is_file():
            return
        try:
            await in_thread(self._keep, self._part(file), beginning)
        except OSError as error:
            raise StoreError(f"The download cannot be written: {error.strerror or error}.") from error

    def _keep(self, stop: Event, part: PartFile, beginning: bytes) -> None:
        try:
            part.open(stop)
            self._count(part, part.begin(beginning))
        finally:
            part.close()

    def skip(self, path: str) -> None:
        """Count a file as done that is not needed, or not any more."""
        self._counts[path] = self._files[path].size

    def prepare(self) -> None:
        """Count what an earlier run left, and drop what is of another version of the model.

        Raises StoreError, HubError (a name that leaves the directory). `run` and `piece` begin with it.
        """
        if self._prepared:
            return
        try:
            self._clear()
            for path, file in self._files.items():
                target = self.directory / path
                whole = target.is_file() and target.stat().st_size == file.size
                here = file.size if whole else bytes_on_disk(file, self._part_path(path), self._sidecar(path))
                self._counts[path] = here
        except OSError as error:
            raise StoreError(f"The download cannot be written: {error.strerror or error}.") from error
        self._prepared = True

    def _clear(self) -> None:
        for directory in (self.directory, self._parts):
            directory.mkdir(parents=True, exist_ok=True)
        for name in self._files:
            target = self.directory / name
            if not target.resolve().is_relative_to(self.directory.resolve()) or target == self.directory:
                raise HubError(f"The server names a file outside the model's directory: {name[:80]!r}.")
        for path in [each for each in self.directory.rglob("*") if each.is_file() or each.is_symlink()]:
            if path.relative_to(self.directory).as_posix() not in self._files:
                path.unlink()
        for path in [each for each in self._parts.rglob("*") if each.is_file()]:
            if path.relative_to(self._parts).with_suffix("").as_posix() not in self._files:
                path.unlink()

    async def _fetch(self, client: AsyncClient, file: RemoteFile) -> Downloaded:
        part = self._part(file)
        transfer = FileTransfer(
            client,
            part,
            headers=self._headers,
            policy=self._policy,
            gate=self._gate,
            written=partial(self._count, part),
        )
        done = await transfer.run()
        self._counts[file.path] = file.size
        return done

    def _part(self, file: RemoteFile) -> PartFile:
        span = self._policy.span if file.size > 2 * self._policy.span else 0
        target = self.directory / file.path
        return PartFile(file, target, self._part_path(file.path), self._sidecar(file.path), span)

    def _count(self, part: PartFile, written: int) -> None:
        self._counts[part.file.path] = part.received
        self.received += written

    async def _bytes(self, client: AsyncClient, file: RemoteFile, start: int, end: int) -> bytes:
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        found, pace = bytearray(), Pace(self._policy)
        async with file_response(client, file.url, headers, self._headers, self._policy) as response:
            before = 0 if response.status_code == 206 else start  # a server without ranges
            async for chunk in response.aiter_raw():
                pace.count(len(chunk))
                found += chunk
                if len(found) >= before + end - start:
                    return bytes(found[before : before + end - start])
        raise Interrupted("the connection was cut")

    def _client(self) -> AsyncClient:
        from httpx2 import Timeout

        from squish.download.client import open_client

        stall = self._policy.stall
        return open_client(Timeout(stall, connect=min(stall, 15.0), pool=None))

    def _part_path(self, path: str) -> Path:
        return self._parts / f"{path}.part"

    def _sidecar(self, path: str) -> Path:
        return self._parts / f"{path}.json"
