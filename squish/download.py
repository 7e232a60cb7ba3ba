"""Downloads a list of files by resumable ranged requests, and checks every byte.

A file is written to `parts/NAME.part` with a sidecar `parts/NAME.json` (its ETag, and what was promised of it), and
moves to `files/NAME` when size and hash are right. Both survive Ctrl-C, kill -9 and a lost network: the next run asks
for the rest only. It knows URLs and hashes, not models and not the Hub. Proxies (HTTPS_PROXY, NO_PROXY) and
certificates (SSL_CERT_FILE) of the environment are honored by the HTTP library.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from squish.errors import CorruptModel, GatedRepo, HubError, HubUnreachable, SquishError, StoreError
from squish.partfile import Downloaded, PartFile, RemoteFile

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

_BUFFER = 256 * 1024
_RESERVE, _LEAST_RESERVE = 256 * 1024 * 1024, 16 * 1024 * 1024
_REDIRECTS = 5
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Policy:
    """attempts: tries in a row that bring no byte; delays and stall in seconds; a connection that brings fewer than
    floor bytes in one stall period is given up; connections: files at a time."""

    attempts: int = 6
    first_delay: float = 0.5
    longest_delay: float = 30.0
    longest_wait: float = 300.0
    stall: float = 30.0
    floor: int = 1024
    connections: int = 4


class _Interrupted(Exception):
    """A try that failed in a way that another one may not. wait: seconds that the server asks for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Download:
    """One download of a list of files into `directory`/files. `done` and `total` count bytes while `run` runs."""

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
        self._counts = {file.path: 0 for file in files}
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
            self._prepare()
            files = self._files if only is None else tuple(file for file in self._files if file.path in only)
            if only is None:
                require_space(self._root, self.total - self._bytes_on_disk())
            gate = asyncio.Semaphore(self._policy.connections)
            async with self._client() as client, asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._fetch(client, file, gate)) for file in files]
            return tuple(task.result() for task in tasks)
        except OSError as error:
            raise StoreError(f"The download cannot be written: {error.strerror or error}.") from error
        except BaseExceptionGroup as group_error:
            raise first_error(group_error) from None

    async def head(self, path: str, length: int) -> bytes:
        """The first bytes of a file, of disk where they are there, else of the server; not checked by any hash.

        Raises what `run` raises.
        """
        self._prepare()
        file = next(each for each in self._files if each.path == path)
        for here in (self._root / path, self._parts / f"{path}.part"):
            if here.is_file() and here.stat().st_size >= min(length, file.size):
                with here.open("rb") as stream:
                    return stream.read(length)
        failures = 0
        async with self._client() as client:
            while True:
                try:
                    return await self._first_bytes(client, file, min(length, file.size))
                except _Interrupted as error:
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
            async with self._response(client, file.url, headers) as response:
                async for chunk in response.aiter_raw():
                    found += chunk
                    if len(found) >= length:
                        return bytes(found[:length])
        except HTTPError as error:
            raise _Interrupted(str(error) or type(error).__name__) from error
        raise _Interrupted("the connection was cut")

    def _bytes_on_disk(self) -> int:
        return sum(each.stat().st_size for root in (self._root, self._parts) for each in root.rglob("*"))

    def _prepare(self) -> None:
        """Drop what another version of the model left, and refuse names that leave the directory."""
        if self._prepared:
            return
        self._prepared = True
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

    async def _fetch(self, client: AsyncClient, file: RemoteFile, gate: asyncio.Semaphore) -> Downloaded:
        async with gate:
            target = self._root / file.path
            part = PartFile(file, target, self._parts / f"{file.path}.part", self._parts / f"{file.path}.json")
            try:
                ready = await asyncio.to_thread(part.finished)
                if ready is None:
                    await asyncio.to_thread(part.open)
                    ready = await self._until_complete(client, part)
                self._counts[file.path] = file.size
                return ready
            finally:
                part.close()

    async def _until_complete(self, client: AsyncClient, part: PartFile) -> Downloaded:
        policy, failures, resumed = self._policy, 0, part.offset > 0
        while True:
            before = part.offset
            try:
                if part.offset < part.file.size or part.file.size == 0:
                    await self._stream(client, part)
                return await asyncio.to_thread(part.finish)
            except CorruptModel:
                # A wrong prefix of an earlier run spoils a right rest: one more try, from the start.
                if not resumed:
                    raise
                resumed = False
                self._counts[part.file.path] = part.offset
            except _Interrupted as error:
                failures = 0 if part.offset > before else failures + 1
                if failures >= policy.attempts:
                    raise _broke_off(part.file.path, error) from error
                resumed = resumed or part.offset > 0
                self._counts[part.file.path] = part.offset
                await asyncio.sleep(_delay(policy, failures, error.wait))

    async def _stream(self, client: AsyncClient, part: PartFile) -> None:
        """One request for the rest of a file, written as it comes."""
        from httpx2 import HTTPError, InvalidURL

        headers = {"Accept-Encoding": "identity"}
        if part.offset:
            headers["Range"] = f"bytes={part.offset}-"
            if part.etag:
                headers["If-Range"] = part.etag
        try:
            async with self._response(client, part.file.url, headers) as response:
                self._accept(part, response)
                await self._receive(part, response)
        except InvalidURL as error:
            raise HubError(f"The server sent an address that cannot be used: {error}.") from error
        except HTTPError as error:
            raise _Interrupted(str(error) or type(error).__name__) from error

    @asynccontextmanager
    async def _response(self, client: AsyncClient, url: str, headers: dict[str, str]) -> AsyncIterator[Response]:
        """The response behind all redirects. The caller's headers, with their token, go to the first host only."""
        from httpx2 import URL

        origin = target = URL(url)
        for _ in range(_REDIRECTS + 1):
            same = (target.scheme, target.host, target.port) == (origin.scheme, origin.host, origin.port)
            request = client.build_request("GET", target, headers=headers | (self._headers if same else {}))
            response = await client.send(request, stream=True)
            try:
                if not response.is_redirect:
                    _check_status(response, at_origin=same)
                    yield response
                    return
                target = response.url.join(response.headers.get("location", ""))
            finally:
                await response.aclose()
            if target.scheme not in ("http", "https") or (origin.scheme == "https" and target.scheme != "https"):
                raise HubError("The server redirects a secure download to an address that is not secure.")
        raise HubError("The server redirects without end.")

    def _accept(self, part: PartFile, response: Response) -> None:
        """Match the answer to what was asked for; an answer with the whole file starts over."""
        size, etag = part.file.size, response.headers.get("etag")
        strong = etag if etag and not etag.startswith("W/") else None
        if response.status_code == 206:
            if response.headers.get("content-range", "").strip() == f"bytes {part.offset}-{size - 1}/{size}":
                return
            part.restart(None)
            raise _Interrupted("the server sent another range than asked for")
        part.restart(None if response.status_code == 416 else strong)
        if response.status_code == 416:
            raise _Interrupted("the server has fewer bytes than it announced")
        announced = response.headers.get("content-length")
        if announced is not None and announced != str(size):
            raise CorruptModel(f"{part.file.path} has {announced} bytes on the server, {size} were announced.")

    async def _receive(self, part: PartFile, response: Response) -> None:
        policy, buffer, seen = self._policy, bytearray(), 0
        since = time.monotonic()
        try:
            async for chunk in response.aiter_raw():
                buffer += chunk
                seen += len(chunk)
                if part.offset + len(buffer) > part.file.size:
                    part.restart(None)
                    buffer.clear()
                    raise CorruptModel(f"The server sends more of {part.file.path} than it announced.")
                if len(buffer) >= _BUFFER:
                    await self._write(part, buffer)
                if time.monotonic() - since > policy.stall:
                    if seen < policy.floor:
                        raise _Interrupted("the server sends too slowly")
                    since, seen = time.monotonic(), 0
        finally:
            await self._write(part, buffer)
        if part.offset < part.file.size:
            raise _Interrupted("the connection was cut")

    async def _write(self, part: PartFile, buffer: bytearray) -> None:
        data = bytes(buffer)
        buffer.clear()
        writing = asyncio.get_running_loop().run_in_executor(None, part.write, data)
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})  # the file must not be closed under the thread that writes it
            raise
        self._counts[part.file.path] = part.offset


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


def _broke_off(path: str, error: _Interrupted) -> HubUnreachable:
    return HubUnreachable(
        f"The download of {path} broke off: {error}.",
        hint="Check the network and run the same command again: it goes on where it stopped.",
    )


def _check_status(response: Response, *, at_origin: bool) -> None:
    """Let 200, 206 and 416 pass.

    A signed address of another host that is refused has expired: the next try gets a new one.
    """
    status = response.status_code
    if status in (200, 206, 416):
        return
    if status in _AGAIN or (status in (401, 403) and not at_origin):
        raise _Interrupted(f"the server answered {status}", _retry_after(response.headers.get("retry-after")))
    if status in (401, 403):
        raise GatedRepo(f"The server refuses the download ({status}).", hint="Set HF_TOKEN to a token with access.")
    raise HubError(f"The server answered {status} for {response.url.path}.")


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


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
