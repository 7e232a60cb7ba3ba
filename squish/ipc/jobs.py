"""Jobs for a worker process, one after the other: a start is a third of a second, and a model has many shards.

It knows frames and processes, not what the jobs are of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from squish.errors import EngineError
from squish.ipc.frames import Failed, Job, JobProgress, JobResult
from squish.ipc.process import Worker

Result = TypeVar("Result", bound=JobResult)


class Jobs:
    """A worker that is started for the first job and ends with the block. After each job it gives its memory back."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._worker: Worker | None = None

    async def __aenter__(self) -> Jobs:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            await self._worker.close()

    @property
    def pid(self) -> int | None:
        """The worker's process, None where none runs."""
        return None if self._worker is None or self._worker.ended else self._worker.pid

    async def run(
        self, frame: Job, expected: type[Result], report: Callable[[JobProgress], None] | None = None
    ) -> Result:
        """Do one job; its result, of the expected type. report gets every progress.

        Cancelling ends the worker at once, and so does an error; the next job starts another. Raises the job's error,
        WorkerDied, EngineError.
        """
        worker = await self._running()
        try:
            worker.send(frame)
            return await _result(worker, expected, report)
        except BaseException:
            self._worker = None
            worker.kill()
            await worker.close()
            raise

    async def _running(self) -> Worker:
        """The worker; another one where it ended while it had nothing to do."""
        if self._worker is not None and self.pid is None:
            await self._worker.close()
            self._worker = None
        if self._worker is None:
            self._worker = await Worker.spawn(self._cache_dir)
        return self._worker


async def run_job(
    frame: Job, cache_dir: Path, expected: type[Result], report: Callable[[JobProgress], None] | None = None
) -> Result:
    """Run one job in a worker of its own, as `Jobs.run` does."""
    async with Jobs(cache_dir) as jobs:
        return await jobs.run(frame, expected, report)


async def _result(worker: Worker, expected: type[Result], report: Callable[[JobProgress], None] | None) -> Result:
    while True:
        match await worker.receive():
            case Failed(failure=failure):
                raise failure.to_error()
            case JobProgress() as progress:
                if report is not None:
                    report(progress)
            case result if isinstance(result, expected):
                return result
            case other:
                raise EngineError(f"The worker answered a job with {type(other).__name__}.")
