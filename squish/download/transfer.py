"""Downloads a list of files by resumable ranged requests, and checks every byte.

A file is written to `parts/NAME.part` with a sidecar `parts/NAME.json` (its ETag, and what was promised of it), and
moves to `files/NAME` when size and hash are right. Both survive Ctrl-C, kill -9 and a lost network: the next run asks
for the rest only. A large file comes in several ranges at once. It knows URLs and hashes, not models and not the Hub.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from squish.download.part_file import PartFile
from squish.download.remote_file import Downloaded, RemoteFile, beginning, received
from squish.download.request import Interrupted, answer
from squish.errors import CorruptModel, HubError, HubUnreachable, SquishError, StoreError

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

_BUFFER = 256 * 1024
_RESERVE, _LEAST_RESERVE = 256 * 1024 * 1024, 16 * 1024 * 1024
_BROKEN = (
    "Run the same command again in a while: the repository may be changing just now. "
    "If it stays so, its files are broken: take the model from another repository."
)


@dataclass(frozen=True, slots=True)
class Policy:
    """attempts: tries in a row that bring no byte; delays and stall in seconds; a connection that brings fewer than
    floor bytes in one stall period is given up; connections: files, or ranges of a large file, at a time; span: bytes
    of such a range, where a file has more than two."""

    attempts: int = 6
    first_delay: float = 0.5
    longest_delay: float = 30.0
    longest_wait: float = 300.0
    stall: float = 30.0
    floor: int = 1024
    connections: int = 4
    span: int = 64 * 1024 * 1024


class _StartOver(Exception):
    """What is here of a file does not go with what the server sends.

    whole: it does not send ranges. error: what to say when it happens again.
    """

    def __init__(self, reason: str, *, whole: bool = False, error: CorruptModel | None = None) -> None:
        super().__init__(reason)
        self.whole, self.error = whole, error


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
        self.total = sum(file.size for file in files)
        self._files = files
        self._root, self._parts = directory / "files", directory / "parts"
        self._headers = dict(headers or {})
        self._policy = policy or Policy()
        self._gate = asyncio.Semaphore(self._policy.connections)
        self._counts = {file.path: 0 for file in files}
        self.received = 0
        self._prepared = False

    @property
    def done(self) -> int:
        """Bytes on disk, those of an earlier run counted."""
        return sum(self._counts.values())

    @property
    def directory(self) -> Path:
        return self._root

    async def run(self, only: Collection[str] | None = None) -> tuple[Downloaded, ...]:
        """Download what is missing of the files, or of those named by path; several calls may run at once.

        Raises HubUnreachable, GatedRepo, HubError, CorruptModel, StoreError.
        """
        try:
            self.prepare()
            files = self._files if only is None else tuple(file for file in self._files if file.path in only)
            if only is None:
                require_space(self._root, self.total - self._bytes_on_disk())
            async with self._client() as client, asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._fetch(client, file)) for file in files]
            return tuple(task.result() for task in tasks)
        except OSError as error:
            raise StoreError(f"The download cannot be written: {error.strerror or error}.") from error
        except BaseExceptionGroup as group_error:
            raise first_error(group_error) from None

    async def head(self, path: str, length: int) -> bytes:
        """The first bytes of a file, of its part on disk where they are there, else of the server; checked by no hash.

        Raises what `run` raises.
        """
        self.prepare()
        file = next(each for each in self._files if each.path == path)
        part = self._parts / f"{path}.part"
        if not file.size:
            return b""
        if beginning(file, part, self._sidecar(path)) >= min(length, file.size):
            with part.open("rb") as stream:
                return stream.read(length)
        failures = 0
        async with self._client() as client:
            while True:
                try:
                    return await self._first_bytes(client, file, min(length, file.size))
                except Interrupted as error:
                    failures += 1
                    if failures >= self._policy.attempts:
                        raise _broke_off(path, error) from error
                    await asyncio.sleep(_delay(self._policy, failures, error.wait))

    def skip(self, path: str) -> None:
        """Count a file as done that an earlier run has used up."""
        self._counts[path] = next(file.size for file in self._files if file.path == path)

    def _client(self) -> AsyncClient:
        from httpx2 import AsyncClient, Timeout

        policy = self._policy
        timeout = Timeout(policy.stall, connect=min(policy.stall, 15.0), pool=None)
        return AsyncClient(timeout=timeout, follow_redirects=False)

    async def _first_bytes(self, client: AsyncClient, file: RemoteFile, length: int) -> bytes:
        from httpx2 import HTTPError

        headers = {"Accept-Encoding": "identity", "Range": f"bytes=0-{length - 1}"}
        found = bytearray()
        try:
            async with answer(client, file.url, headers, self._headers) as response:
                async for chunk in response.aiter_raw():
                    found += chunk
                    if len(found) >= length:
                        return bytes(found[:length])
        except HTTPError as error:
            raise Interrupted(str(error) or type(error).__name__) from error
        raise Interrupted("the connection was cut")

    def _bytes_on_disk(self) -> int:
        return sum(occupied(root) for root in (self._root, self._parts))

    def _sidecar(self, path: str) -> Path:
        return self._parts / f"{path}.json"

    def prepare(self) -> None:
        """Count what an earlier run left, and drop what is of another version of the model.

        Raises StoreError, HubError (a name that leaves the directory). `run` and `head` begin with it.
        """
        if self._prepared:
            return
        try:
            self._clear()
            for file in self._files:
                target, part = self._root / file.path, self._parts / f"{file.path}.part"
                whole = target.is_file() and target.stat().st_size == file.size
                self._counts[file.path] = file.size if whole else received(file, part, self._sidecar(file.path))
        except OSError as error:
            raise StoreError(f"The download cannot be written: {error.strerror or error}.") from error
        self._prepared = True

    def _clear(self) -> None:
        for directory in (self._root, self._parts):
            directory.mkdir(parents=True, exist_ok=True)
        wanted = {file.path for file in self._files}
        for file in self._files:
            target = self._root / file.path
            if not target.resolve().is_relative_to(self._root.resolve()) or target == self._root:
                raise HubError(f"The server names a file outside the model's directory: {file.path[:80]!r}.")
        for path in [each for each in self._root.rglob("*") if each.is_file() or each.is_symlink()]:
            if path.relative_to(self._root).as_posix() not in wanted:
                path.unlink()
        for path in [each for each in self._parts.rglob("*") if each.is_file()]:
            if path.relative_to(self._parts).with_suffix("").as_posix() not in wanted:
                path.unlink()

    async def _fetch(self, client: AsyncClient, file: RemoteFile) -> Downloaded:
        span = self._policy.span if file.size > 2 * self._policy.span else 0
        paths = self._root / file.path, self._parts / f"{file.path}.part", self._sidecar(file.path)
        part = PartFile(file, *paths, span)
        try:
            async with self._gate:
                ready = await asyncio.to_thread(part.finished)
                if ready is None:
                    await asyncio.to_thread(part.open)
            if ready is None:
                ready = await self._until_complete(client, part)
            self._counts[file.path] = file.size
            return ready
        finally:
            part.close()

    async def _until_complete(self, client: AsyncClient, part: PartFile) -> Downloaded:
        failures = 0
        while True:
            self._counts[part.file.path] = part.received
            try:
                await self._ranges(client, part)
                return await asyncio.to_thread(part.finish)
            except CorruptModel:
                # A wrong prefix of an earlier run spoils a right rest: one more try, from the start.
                resumed = part.resumed
                part.restart(None)
                if not resumed:
                    raise
            except _StartOver as error:
                failures += 1
                part.restart(None, whole=error.whole)
                if error.error is not None and failures > 1:
                    raise error.error from error
                if failures >= self._policy.attempts:
                    raise _broke_off(part.file.path, error) from error
                await asyncio.sleep(_delay(self._policy, failures, None))

    async def _ranges(self, client: AsyncClient, part: PartFile) -> None:
        """All ranges that are not complete, as many at once as there are connections."""
        missing = [number for number in part.ranges if not part.is_complete(number)]
        try:
            async with asyncio.TaskGroup() as group:
                for number in missing:
                    group.create_task(self._range(client, part, number))
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    async def _range(self, client: AsyncClient, part: PartFile, number: int) -> None:
        policy, failures = self._policy, 0
        while not part.is_complete(number):
            before = part.position(number)
            try:
                async with self._gate:
                    await self._stream(client, part, number)
            except Interrupted as error:
                failures = 0 if part.position(number) > before else failures + 1
                if failures >= policy.attempts:
                    raise _broke_off(part.file.path, error) from error
                part.resumed = part.resumed or part.received > 0
                await asyncio.sleep(_delay(policy, failures, error.wait))

    async def _stream(self, client: AsyncClient, part: PartFile, number: int) -> None:
        """One request for the rest of a range, written as it comes."""
        from httpx2 import HTTPError, InvalidURL

        headers, at, end = {"Accept-Encoding": "identity"}, part.position(number), part.end(number)
        if (at, end) != (0, part.file.size):
            headers["Range"] = f"bytes={at}-" + (f"{end - 1}" if end < part.file.size else "")
            if part.etag:
                headers["If-Range"] = part.etag
        try:
            async with answer(client, part.file.url, headers, self._headers) as response:
                self._accept(part, number, response)
                await self._receive(part, number, response)
        except InvalidURL as error:
            raise HubError(f"The server sent an address that cannot be used: {error}.") from error
        except HTTPError as error:
            raise Interrupted(str(error) or type(error).__name__) from error

    def _accept(self, part: PartFile, number: int, response: Response) -> None:
        """Match the answer to what was asked for; an answer with the whole file starts over."""
        size, etag = part.file.size, response.headers.get("etag")
        strong = etag if etag and not etag.startswith("W/") else None
        if response.status_code == 416:
            raise _StartOver("the server has fewer bytes than it announced")
        if response.status_code == 206:
            wanted = f"bytes {part.position(number)}-{part.end(number) - 1}/{size}"
            if response.headers.get("content-range", "").strip() != wanted:
                raise _StartOver("the server sent another range than asked for")
            if part.etag and strong and strong != part.etag:
                raise _StartOver("the file changes on the server")
            part.etag = part.etag or strong
            return
        announced = response.headers.get("content-length")
        if announced is not None and announced != str(size):
            problem = f"{part.file.path} has {announced} bytes on the server, {size} were announced."
            raise CorruptModel(problem, hint=_BROKEN)
        if len(part.ranges) > 1:
            raise _StartOver("the server sends no ranges", whole=True)
        part.restart(strong)

    async def _receive(self, part: PartFile, number: int, response: Response) -> None:
        policy, buffer, seen = self._policy, bytearray(), 0
        since = time.monotonic()
        try:
            async for chunk in response.aiter_raw():
                buffer += chunk
                seen += len(chunk)
                if part.position(number) + len(buffer) > part.end(number):
                    buffer.clear()
                    problem = f"The server sends more of {part.file.path} than it announced."
                    raise _StartOver(problem, error=CorruptModel(problem, hint=_BROKEN))
                if len(buffer) >= _BUFFER:
                    await self._write(part, number, buffer)
                if time.monotonic() - since > policy.stall:
                    if seen < policy.floor:
                        raise Interrupted("the server sends too slowly")
                    since, seen = time.monotonic(), 0
        finally:
            await self._write(part, number, buffer)
        if not part.is_complete(number):
            raise Interrupted("the connection was cut")

    async def _write(self, part: PartFile, number: int, buffer: bytearray) -> None:
        data = bytes(buffer)
        buffer.clear()
        writing = asyncio.get_running_loop().run_in_executor(None, part.write, number, data)
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})  # the file must not be closed under the thread that writes it
            raise
        self._counts[part.file.path] = part.received
        self.received += len(data)


def occupied(directory: Path) -> int:
    """Bytes of disk that the files below a directory take; a hole in one takes none."""
    found = [each.stat() for each in directory.rglob("*") if each.is_file()]
    return sum(min(each.st_size, each.st_blocks * 512) for each in found)


def require_space(directory: Path, size: int) -> None:
    """Raises StoreError when the disk under a directory has no room for size more bytes and a reserve.

    The reserve is a tenth of the size, from 16 to 256 MiB.
    """
    free = shutil.disk_usage(directory).free
    needed = size + min(_RESERVE, max(_LEAST_RESERVE, size // 10))
    if size > 0 and needed > free:
        raise StoreError(
            f"The disk has {free / 1e9:.1f} GB free; this needs {needed / 1e9:.1f} GB.",
            hint="Free some space, or set SQUISH_CACHE_DIR to a directory on another disk.",
        )


def _broke_off(path: str, error: Exception) -> HubUnreachable:
    return HubUnreachable(
        f"The download of {path} broke off: {error}.",
        hint="Check the network and run the same command again: it goes on where it stopped.",
    )


def _delay(policy: Policy, failures: int, asked: float | None) -> float:
    """Seconds to the next try: what the server asks for, else doubling with some chance in it."""
    if asked is not None:
        return min(asked, policy.longest_wait)
    backoff: float = policy.first_delay * 2.0 ** max(0, failures - 1)
    return min(backoff, policy.longest_delay) * random.uniform(0.5, 1.0)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to show of several tasks that failed: one of ours before any other."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            leaves.append(error)
    for error in leaves:
        if isinstance(error, OSError):
            return StoreError(f"The download cannot be written: {error.strerror or error}.")
    return next((error for error in leaves if isinstance(error, SquishError)), leaves[0])
