"""One file from a server to its place: in ranges, tried again where a connection breaks, and checked at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from squish.download.disk import in_thread
from squish.download.part_file import PartFile
from squish.download.patience import Interrupted, Policy
from squish.download.remote_file import Downloaded
from squish.download.request import Pace, file_response
from squish.errors import CorruptModel, HubUnreachable, SquishError, StoreError

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

_BUFFER = 256 * 1024
_BROKEN = (
    "Run the same command again in a while: the repository may be changing just now. "
    "If that does not help, its files are broken: take the model from another repository."
)


class _StartOver(Exception):
    """What is here of a file does not go with what the server sends.

    whole: the server does not send ranges. error: what to say when it happens again.
    """

    def __init__(self, reason: str, *, whole: bool = False, error: CorruptModel | None = None) -> None:
        super().__init__(reason)
        self.whole, self.error = whole, error


class FileTransfer:
    """The transfer of one file. gate: held for every connection; written: called with the bytes of every write."""

    def __init__(
        self,
        client: AsyncClient,
        part: PartFile,
        *,
        headers: Mapping[str, str],
        policy: Policy,
        gate: asyncio.Semaphore,
        written: Callable[[int], None],
    ) -> None:
        self._client, self._part, self._headers, self._policy = client, part, headers, policy
        self._gate, self._written = gate, written

    async def run(self) -> Downloaded:
        """Fetch what is missing of the file. Raises HubUnreachable, GatedRepo, HubError, CorruptModel, StoreError."""
        try:
            async with self._gate:
                ready = await in_thread(self._part.finished)
                if ready is None:
                    await in_thread(self._part.open)
            return ready or await self._until_complete()
        finally:
            self._part.close()

    async def _until_complete(self) -> Downloaded:
        part, failures = self._part, 0
        while True:
            self._written(0)
            try:
                await self._fetch_ranges()
                return await in_thread(part.finish)
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
                    raise broke_off(part.file.path, error) from error
                await asyncio.sleep(self._policy.delay(failures, None))

    async def _fetch_ranges(self) -> None:
        """All ranges that are not complete, as many at once as there are connections."""
        missing = [number for number in self._part.ranges if not self._part.is_complete(number)]
        try:
            async with asyncio.TaskGroup() as group:
                for number in missing:
                    group.create_task(self._fetch_range(number))
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    async def _fetch_range(self, number: int) -> None:
        part, policy, failures = self._part, self._policy, 0
        while not part.is_complete(number):
            before = part.position(number)
            try:
                async with self._gate:
                    await self._request_rest(number)
            except Interrupted as error:
                failures = 0 if part.position(number) - before >= policy.floor else failures + 1
                if failures >= policy.attempts:
                    raise broke_off(part.file.path, error) from error
                part.resumed = part.resumed or part.received > 0
                await asyncio.sleep(policy.delay(failures, error.wait))

    async def _request_rest(self, number: int) -> None:
        """One request for what is missing of a range, written as it comes."""
        part = self._part
        headers, at, end = {"Accept-Encoding": "identity"}, part.position(number), part.end(number)
        if (at, end) != (0, part.file.size):
            headers["Range"] = f"bytes={at}-" + (f"{end - 1}" if end < part.file.size else "")
            if part.etag:
                headers["If-Range"] = part.etag
        async with file_response(self._client, part.file.url, headers, self._headers, self._policy) as response:
            self._accept(number, response)
            await self._receive(number, response)

    def _accept(self, number: int, response: Response) -> None:
        """Match the response to what was asked for; one with the whole file starts over."""
        part, size, etag = self._part, self._part.file.size, response.headers.get("etag")
        strong = etag if etag and not etag.startswith("W/") else None
        if response.status_code == 416:
            raise _StartOver("the server has fewer bytes than it announced")
        if response.status_code == 206:
            expected = f"bytes {part.position(number)}-{part.end(number) - 1}/{size}"
            if response.headers.get("content-range", "").strip() != expected:
                raise _StartOver("the server sent a different range than requested")
            if part.etag and strong and strong != part.etag:
                raise _StartOver("the file is changing on the server")
            part.etag = part.etag or strong
            return
        announced = response.headers.get("content-length")
        if announced is not None and announced != str(size):
            problem = f"{part.file.path} has {announced} bytes on the server, {size} were announced."
            raise CorruptModel(problem, hint=_BROKEN)
        if len(part.ranges) > 1:
            raise _StartOver("the server sends no ranges", whole=True)
        part.restart(strong)

    async def _receive(self, number: int, response: Response) -> None:
        part, buffer, pace = self._part, bytearray(), Pace(self._policy)
        try:
            async for chunk in response.aiter_raw():
                pace.count(len(chunk))
                buffer += chunk
                if part.position(number) + len(buffer) > part.end(number):
                    buffer.clear()
                    problem = f"The server sends more of {part.file.path} than it announced."
                    raise _StartOver(problem, error=CorruptModel(problem, hint=_BROKEN))
                if len(buffer) >= _BUFFER:
                    await self._write(number, buffer)
        finally:
            await self._write(number, buffer)
        if not part.is_complete(number):
            raise Interrupted("the connection was cut")

    async def _write(self, number: int, buffer: bytearray) -> None:
        data = bytes(buffer)
        buffer.clear()
        writing = asyncio.get_running_loop().run_in_executor(None, self._part.write, number, data)
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})  # the file must not be closed under the thread that writes it
            raise
        self._written(len(data))


def broke_off(path: str, error: Exception) -> HubUnreachable:
    return HubUnreachable(
        f"The download of {path} broke off: {error}.",
        hint="Check the network and run the same command again: it continues where it stopped.",
    )


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
