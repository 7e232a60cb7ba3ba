"""An event loop whose threads are waited for only a moment when the program ends.

asyncio's own are waited for until they are done, by the loop and once more by the interpreter: one that reads from a
disk which does not answer would keep the program alive for good.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import Any, TypeVar

Result = TypeVar("Result")

PATIENCE = 5.0  # seconds for all threads together


class Threads(ThreadPoolExecutor):
    """A pool like the standard one, of daemons. asyncio wants its class, of which nothing else is used."""

    def __init__(self) -> None:
        self._most = min(32, (os.cpu_count() or 1) + 4)
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._waiting, self._lock = Semaphore(0), Lock()  # one of the first for each thread without work
        self._started: list[Thread] = []
        self._ended = False

    def submit(self, work: Callable[..., Result], /, *args: Any, **options: Any) -> Future[Result]:
        future: Future[Result] = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError("the program is ending")
            self._work.put((future, partial(work, *args, **options)))
            if not self._waiting.acquire(blocking=False) and len(self._started) < self._most:
                thread = Thread(target=self._run, daemon=True, name=f"thread {len(self._started)}")
                self._started.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more work. wait: a moment for what was begun, no longer."""
        with self._lock:
            self._ended = True
        for _ in self._started:
            self._work.put(None)
        end = time.monotonic() + (PATIENCE if wait else 0.0)
        for each in self._started:
            each.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            future, work = item
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:  # noqa: BLE001  it is raised where the result is awaited
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del item, future, work  # a thread without work keeps nothing alive
            self._waiting.release()


class Loop(asyncio.SelectorEventLoop):
    """With such threads."""

    def __init__(self) -> None:
        super().__init__()
        self.set_default_executor(Threads())


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """asyncio.run, on such a loop."""
    with asyncio.Runner(loop_factory=Loop) as opened:
        return opened.run(main)
