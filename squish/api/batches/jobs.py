"""The batches of a server: kept in files, run one after the other, taken up again when the server starts.

One process runs the batches of a directory; another server on the same home refuses new ones.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from squish.api.batches.files import Files, new_id
from squish.api.batches.kept import KeptBatches
from squish.api.batches.lines import ENDPOINTS, Item, Line, LineProblem, decode_line, items, problems
from squish.api.batches.run import Output, run
from squish.api.batches.shapes import ENDED, BatchObject, BatchRequest, Counts, Problems
from squish.api.errors import Refused
from squish.errors import InvalidInput, SquishError
from squish.files import NoLocks, lock, open_private
from squish.text import clean

logger = logging.getLogger("squish.api")

_DAY = 86_400


class Batches:
    """answering: gives what answers the requests of one batch.

    opened: awaited before anything is answered. at_once: requests of a batch that are answered together.
    """

    def __init__(
        self,
        directory: Path,
        answering: Callable[[BatchObject], Callable[[Item], Awaitable[Line]]],
        opened: Callable[[], Awaitable[None]],
        at_once: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.files = Files(directory, clock)
        self.kept = KeptBatches(directory)
        self._directory = directory
        self._answering, self._opened, self._at_once, self._clock = answering, opened, at_once, clock
        self._lock: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._running: tuple[str, asyncio.Task[None]] | None = None

    def start(self) -> None:
        """Go on with what an earlier server left."""
        if any(each.status not in ENDED for each in self.kept.list()) and self._own():
            self._go()

    async def close(self) -> None:
        """Stop; what is under way goes on when a server starts."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._lock is not None:
            os.close(self._lock)

    def create(self, request: BatchRequest, key: str | None) -> BatchObject:
        """A batch that waits for its turn. key: the name of the client's.

        Raises InvalidInput naming the field, and Refused.
        """
        if request.endpoint not in ENDPOINTS:
            raise InvalidInput(f"endpoint must be one of {', '.join(ENDPOINTS)}.", param="endpoint")
        if request.completion_window != "24h":
            raise InvalidInput("completion_window must be 24h.", param="completion_window")
        if request.metadata is not None and len(request.metadata) > 16:
            raise InvalidInput("metadata can have 16 keys.", param="metadata")
        file = self.files.find(request.input_file_id)
        if file is None or file.key != key:
            raise InvalidInput(f"There is no file {request.input_file_id[:64]!r}.", param="input_file_id")
        self._must_own()
        now = int(self._clock())
        batch = BatchObject(
            id=new_id("batch_"),
            endpoint=request.endpoint,
            input_file_id=request.input_file_id,
            completion_window=request.completion_window,
            created_at=now,
            expires_at=now + _DAY,
            metadata=request.metadata,
            key=key,
        )
        self.kept.keep(batch)
        self._go()
        return batch

    def cancel(self, batch: BatchObject) -> BatchObject:
        """Ask for its end; what is answered already stays. Raises InvalidInput for one that has ended."""
        if batch.status in ENDED:
            raise InvalidInput(f"The batch is {batch.status}; only one that has not ended can be cancelled.")
        self._must_own()
        batch = self.kept.change(batch, status="cancelling", cancelling_at=batch.cancelling_at or int(self._clock()))
        if self._running and self._running[0] == batch.id:
            self._running[1].cancel()
        else:
            self._go()
        return batch

    def reader_of(self, file: str) -> BatchObject | None:
        """The batch that still needs a file, if one does."""
        return next(
            (each for each in self.kept.list() if each.input_file_id == file and each.status not in ENDED), None
        )

    def _go(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run_all(), name="batches")

    async def _run_all(self) -> None:
        while pending := [each for each in self.kept.list() if each.status not in ENDED]:
            batch = pending[-1]
            task = asyncio.create_task(self._run(batch))
            self._running = (batch.id, task)
            try:
                await asyncio.wait([task])
            finally:
                self._running = None
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await self._settle(batch.id, task)

    async def _settle(self, id: str, task: asyncio.Task[None]) -> None:
        """Say how a run ended that did not say so itself."""
        error = None if task.cancelled() else task.exception()
        batch = self.kept.find(id)
        if batch is None or batch.status in ENDED:
            return
        if batch.status == "cancelling":
            self._finish(batch, "cancelled")
        elif error is not None:
            known = error.message if isinstance(error, SquishError | Refused) else None
            reason = known or "Something went wrong in the server."
            logger.error("batch %s: %s", id, clean(reason), exc_info=None if known else error)
            self.kept.change(batch, status="failed", failed_at=int(self._clock()), errors=_problem(reason))

    async def _run(self, batch: BatchObject) -> None:
        await self._opened()
        if batch.status == "cancelling":
            return
        with self.files.content_path(batch.input_file_id).open("rb") as file:
            if found := await asyncio.to_thread(problems, file, batch.endpoint):
                errors = Problems(data=found)
                self.kept.change(batch, status="failed", failed_at=int(self._clock()), errors=errors)
                return
        with (
            self.files.content_path(batch.input_file_id).open("rb") as file,
            Output(self._scratch(batch, "lines"), private=True) as output,
        ):
            total = await asyncio.to_thread(lambda: sum(bool(text.strip()) for text in file))
            file.seek(0)
            counts = [len(output.settled), sum(not line.is_answer for line in output.settled)]
            answered = {line.custom_id for line in output.settled}
            self.kept.counts[batch.id] = _counts(total, *counts)
            began = batch.in_progress_at or int(self._clock())
            batch = self.kept.change(batch, status="in_progress", in_progress_at=began)

            def write(line: Line) -> None:
                output.write(line)
                counts[0] += 1
                counts[1] += not line.is_answer
                self.kept.counts[batch.id] = _counts(total, *counts)

            answer = self._answering(batch)
            todo = (each for each in items(file) if each.custom_id not in answered)  # read as they are answered
            await run(todo, answer, write, self._at_once)
        self._finish(batch, "completed")

    def _finish(self, batch: BatchObject, status: str) -> None:
        """Part the answers from the failures, which makes both files that clients see."""
        now = int(self._clock())
        batch = self.kept.change(
            batch, status="finalizing" if status == "completed" else batch.status, finalizing_at=now
        )
        lines = self._scratch(batch, "lines")
        made = self._part(batch, lines) if lines.exists() else {}
        self.kept.change(batch, status=status, **{f"{status}_at": now}, **made)
        self.kept.counts.pop(batch.id, None)
        lines.unlink(missing_ok=True)

    def _part(self, batch: BatchObject, lines: Path) -> dict[str, str]:
        """Make a file of the answers and one of the failures; their ids by the fields of the batch that name them.

        A server that was killed here may have made one that is not needed any more, because a failure was tried again.
        """
        made: dict[str, str] = {}
        output, errors = self._scratch(batch, "output"), self._scratch(batch, "errors")
        with lines.open("rb") as every, open_private(output, "wb") as answers, open_private(errors, "wb") as failures:
            for text in every:
                (answers if decode_line(text).is_answer else failures).write(text)
        for scratch, field, kind in ((output, "output_file_id", "output"), (errors, "error_file_id", "errors")):
            name = f"{batch.id}_{kind}.jsonl"
            if scratch.stat().st_size:
                made[field] = self.files.adopt(scratch, name, "batch_output", batch.key).id
            else:
                scratch.unlink()
                self.files.disown(name)
        return made

    def _scratch(self, batch: BatchObject, kind: str) -> Path:
        return self._directory / f"{batch.id}.{kind}"

    def _must_own(self) -> None:
        if not self._own():
            raise Refused(503, "batches_elsewhere", "Another server of this user runs batches; ask it.")

    def _own(self) -> bool:
        """Whether this process may run batches here."""
        if self._lock is not None:
            return True
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock(descriptor, wait=False)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except NoLocks:
            pass
        self._lock = descriptor
        self._sweep()
        return True

    def _sweep(self) -> None:
        """Delete what servers that were killed have left and nobody needs."""
        self.files.sweep()
        for batch in self.kept.list():
            if batch.status in ENDED:
                self._scratch(batch, "lines").unlink(missing_ok=True)


def _counts(total: int, done: int, failed: int) -> Counts:
    return Counts(total=total, completed=done - failed, failed=failed)


def _problem(reason: str) -> Problems:
    return Problems(data=[LineProblem("server_error", reason, None, 0)])
