"""Runs the requests of a file and appends each answer to another as it comes, so that a kill loses only what was
being answered. It knows neither HTTP nor the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from squish.api.batches.lines import Item, Line, SettledLine, settled
from squish.errors import InvalidInput, SquishError
from squish.files import NoLocks, flush, lock, open_private, write_whole


class Output:
    """A file of answers, open to be continued. settled: the lines that it held already and that stay.

    private: where it is made, it is for its owner alone. Raises InvalidInput where it holds something else, and
    SquishError where it cannot be written or is in use.
    """

    def __init__(self, path: Path, *, private: bool = False) -> None:
        self.path = path
        try:
            self._file = open_private(path, "ab+") if private else path.open("ab+")
        except OSError as error:
            raise SquishError(f"{path} cannot be written: {error.strerror}.") from error
        try:
            self._lock()
            self._file.seek(0)
            self.settled, clean = settled(self._file)
            if not clean:
                self._keep_settled()
        except InvalidInput as error:
            self._file.close()
            raise InvalidInput(f"{path}, {error.message}", hint="Give another file for the answers.") from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._file:
            self._file.flush()
            flush(self._file.fileno())

    def write(self, line: Line) -> None:
        """Append an answer. It survives a kill at once, and a power cut once the output is closed."""
        try:
            self._file.write(msgspec.json.encode(line) + b"\n")
            self._file.flush()
        except OSError as error:
            raise SquishError(f"{self.path} cannot be written: {error.strerror}.") from error

    def _lock(self) -> None:
        try:
            lock(self._file.fileno(), wait=False)
        except BlockingIOError:
            raise SquishError(f"{self.path} is being written by another batch.") from None
        except NoLocks:
            pass

    def _read(self, line: SettledLine) -> bytes:
        self._file.seek(line.start)
        return self._file.read(line.end - line.start)

    def _keep_settled(self) -> None:
        """Take out half a line and the failures that are tried again."""
        write_whole(self.path, b"".join(self._read(line) for line in self.settled))
        self._file.close()
        self._file = self.path.open("ab+")
        self._lock()


async def run(
    todo: Iterable[Item], answer: Callable[[Item], Awaitable[Line]], write: Callable[[Line], None], at_once: int
) -> None:
    """Answer all of them, so many at a time, and write each line when it is there. Raises what writing raises."""
    waiting = iter(todo)

    async def work() -> None:
        for item in waiting:
            write(await answer(item))

    tasks = [asyncio.create_task(work()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
