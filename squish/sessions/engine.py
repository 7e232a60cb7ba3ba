"""One model seen from asyncio: its worker, its waiting queue, its requests.

An Engine loads its model on first use, starts requests as places become free, hands every request its events and
unloads after the keep-alive. It knows no names, no store and no other model: that is manager.py.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from squish.errors import EngineError, InvalidInput, LoadFailed, QueueFull, SquishError, WorkerDied
from squish.generation import GenerationEvent, Loading, Prompt, Queued
from squish.ipc.frames import Cancel, Counted, CountTokens, Embedded, Events, Failed, Load, Loaded, Warned
from squish.ipc.memory_limit import memory_limit
from squish.ipc.process import Worker
from squish.sessions.embedding import EmbeddingWork
from squish.sessions.work import Work

MAX_ROWS = 256
_ATTEMPTS = 2

State = Literal["unloaded", "loading", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class Limits:
    """max_queue: requests that may wait; max_concurrency: rows decoded at the same time; keep_alive: idle seconds."""

    max_queue: int
    max_concurrency: int
    keep_alive: float


class Engine:
    """The one place where the requests for a model meet its worker. All methods belong to the event loop's thread."""

    def __init__(
        self,
        path: Path,
        spawn: Callable[[], Awaitable[Worker]],
        limits: Limits,
        *,
        on_loaded: Callable[[], None],
        on_ended: Callable[[], None],
        on_warning: Callable[[str], None],
        cpu_precision: Literal["int8", "float32"] = "int8",
        wire_weights: bool = False,
    ) -> None:
        self.path = path
        self._load = Load(str(path), cpu_precision, wire_weights)
        self.state: State = "unloaded"
        self.loaded: Loaded | None = None
        self.error: SquishError | None = None
        self._spawn = spawn
        self._after_load = on_loaded
        self._after_end = on_ended
        self._warn = on_warning
        self._limits = limits
        self._keep_alive = limits.keep_alive
        self._pinned = False
        self._worker: Worker | None = None
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # the current one and those that still wait for their worker's end
        self._ids = count(1)
        self._running: dict[int, Work] = {}
        self._waiting: deque[Work] = deque()
        self._idle_since = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._became_ready: list[asyncio.Future[Loaded]] = []
        self._counting: dict[int, asyncio.Future[tuple[int, ...] | None]] = {}

    @property
    def running(self) -> int:
        """Requests that hold a place in the batch."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def idle_since(self) -> float | None:
        """Since when a loaded model has had nothing to do, in the loop's time; None while it has, or is not loaded."""
        return None if self.loaded is None or self._busy or self._pinned else self._idle_since

    @property
    def _busy(self) -> bool:
        return bool(self._running or self._waiting or self._counting)

    @property
    def pinned(self) -> bool:
        """Whether the model stays in memory, however long it is idle and whatever else asks for room."""
        return self._pinned

    def pin(self, pinned: bool) -> None:
        self._pinned = pinned
        self._stop_idle_timer()
        if self.state == "ready" and not self._busy:
            self._start_idle_timer()

    @property
    def unloads_in(self) -> float | None:
        """Seconds until the model is unloaded if nobody asks for it; None where it is kept."""
        if self._keep_alive < 0 or self._pinned:
            return None
        if self._idle_timer is None:
            return self._keep_alive
        # The loop's clock, which is asked from threads as well: memory is read in one, and a model's state with it.
        return max(0.0, self._idle_timer.when() - time.monotonic())

    def keep(self, seconds: float) -> None:
        """How long the model stays once it is idle, from now on and until a request says otherwise."""
        self._keep_alive = seconds
        self._stop_idle_timer()
        if self.state == "ready" and not self._running and not self._waiting:
            self._start_idle_timer()

    @property
    def pid(self) -> int | None:
        return self._worker.pid if self._worker else None

    def admit(self, work: Work) -> None:
        """Give a request a place, or a place in the queue. Raises QueueFull or InvalidInput; never waits."""
        if not 1 <= work.rows <= MAX_ROWS:
            raise InvalidInput(f"A request has 1 to {MAX_ROWS} prompts, not {work.rows}.", param="prompt")
        if not self._waiting and self._has_place(work):
            self._start(work)
        elif len(self._waiting) < self._limits.max_queue:
            self._waiting.append(work)
            work.put(Queued(len(self._waiting)))
        else:
            raise QueueFull(
                f"{len(self._waiting)} requests are already waiting for this model.", hint="Try again in a few seconds."
            )

    def cancel(self, work: Work) -> None:
        """Take a request out, wherever it is. Its place is free when the worker has confirmed it."""
        if work in self._waiting:
            self._waiting.remove(work)
            work.finish_unsent()
            self._announce_positions()
            return
        for request, running in self._running.items():
            if running is work:
                if work.sent and self._worker:
                    work.cancelled = True
                    self._worker.send(Cancel(request))
                else:
                    work.finish_unsent()
                    self._release(request)
                return

    async def load(self) -> Loaded:
        """Load now and wait until it is done. Raises what made it fail."""
        if self.loaded is not None:
            return self.loaded
        ready: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._became_ready.append(ready)
        self._ensure_worker()
        return await ready

    async def count(self, prompts: tuple[Prompt, ...]) -> tuple[int, ...] | None:
        """Tokens of each prompt; None while the model is not loaded: a count loads nothing. Raises InvalidInput."""
        if self.loaded is None or self._worker is None:
            return None
        request = next(self._ids)
        counted: asyncio.Future[tuple[int, ...] | None] = asyncio.get_running_loop().create_future()
        self._counting[request] = counted
        self._worker.send(CountTokens(request, prompts))
        try:
            return await counted
        finally:
            del self._counting[request]
            self._rest()

    async def count_loading(self, prompts: tuple[Prompt, ...]) -> tuple[int, ...]:
        """The same, for which the model is loaded if need be. Raises also what made that fail."""
        for _ in range(_ATTEMPTS):
            await self.load()
            counts = await self.count(prompts)
            if counts is not None:
                return counts
        raise EngineError("The model was unloaded while it counted.")

    async def close(self) -> None:
        """End the worker and wait for its end; requests in flight fail."""
        self._stop_idle_timer()
        self._fail_all(EngineError("The model was unloaded while it answered."))
        if self._task:
            self._task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _has_place(self, work: Work) -> bool:
        rows = sum(running.rows for running in self._running.values())
        return rows == 0 or rows + work.rows <= self._limits.max_concurrency

    def _start(self, work: Work) -> None:
        self._stop_idle_timer()
        request = next(self._ids)
        self._running[request] = work
        if work.keep_alive is not None:
            self._keep_alive = work.keep_alive
        if self.loaded and self._worker:
            self._send(request, work)
        else:
            work.put(Loading())
            self._ensure_worker()

    def _send(self, request: int, work: Work) -> None:
        assert self._worker is not None
        work.begin()
        self._worker.send(work.frame(request))

    def _ensure_worker(self) -> None:
        if self._task is None:
            self.state = "loading"
            self.error = None
            self._task = asyncio.create_task(self._serve(), name=f"engine {self.path.name}")
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        """The life of one worker: spawn, load, hand out events, until it dies or is closed."""
        try:
            await self._run_worker()
        except SquishError as error:
            self._worker_failed(error)
        except MemoryError:
            message = "There is not enough memory to start the process of this model."
            self._worker_failed(LoadFailed(message, hint=memory_limit()))
        except Exception as error:  # noqa: BLE001 - the loop's guard: whatever it is, nobody may be left waiting
            self._worker_failed(EngineError(f"Serving this model failed: {type(error).__name__}: {error}"))
        finally:
            worker, self._worker = self._worker, None
            was_loaded = self.loaded is not None
            self.loaded = None
            self._task = None
            for request in self._counting:
                self._settle_count(request, None)
            if self.state != "failed":
                self.state = "unloaded"
            self._after_end()
            self._pump()
            if worker:
                if not was_loaded:
                    worker.kill()  # it has nothing to save, and does not listen while it imports and loads
                await worker.close()

    async def _run_worker(self) -> None:
        self._worker = await self._spawn()
        self._worker.send(self._load)
        while True:
            match await self._worker.receive():
                case Loaded() as loaded:
                    self._on_loaded(loaded)
                case Events(items=items):
                    for request, event in items:
                        self._on_event(request, event)
                case Embedded(request=request, embeddings=embeddings):
                    if isinstance(work := self._running.get(request), EmbeddingWork):
                        work.finish(embeddings)
                        self._release(request)
                case Warned(message=message):
                    self._warn(message)
                case Counted(request=request, tokens=tokens):
                    self._settle_count(request, tokens)
                case Failed(request=None, failure=failure):
                    raise failure.to_error()
                case Failed(request=int() as request, failure=failure) if request in self._counting:
                    self._settle_count(request, failure.to_error())
                case Failed(request=int() as request, failure=failure):
                    if work := self._running.get(request):
                        work.fail(failure.to_error())
                        self._release(request)

    def _settle_count(self, request: int, outcome: tuple[int, ...] | SquishError | None) -> None:
        counted = self._counting.get(request)
        if counted is None or counted.done():
            return
        if isinstance(outcome, SquishError):
            counted.set_exception(outcome)
        else:
            counted.set_result(outcome)

    def _on_loaded(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.state = "ready"
        for ready in self._became_ready:
            if not ready.done():
                ready.set_result(loaded)
        self._became_ready.clear()
        for request, work in list(self._running.items()):
            self._send(request, work)
        self._pump()
        self._after_load()

    def _on_event(self, request: int, event: GenerationEvent) -> None:
        work = self._running.get(request)
        if work is None:
            return
        work.heard = True
        work.put(event)
        if not work.unfinished:
            self._release(request)

    def _release(self, request: int) -> None:
        del self._running[request]
        self._pump()

    def _pump(self) -> None:
        """Start what has a place now."""
        moved = False
        while self._waiting and self._has_place(self._waiting[0]):
            self._start(self._waiting.popleft())
            moved = True
        if moved:
            self._announce_positions()
        self._rest()

    def _rest(self) -> None:
        """With nothing to do, the keep-alive begins."""
        if not self._busy and self.state == "ready":
            self._idle_since = asyncio.get_running_loop().time()
            self._start_idle_timer()

    def _announce_positions(self) -> None:
        for position, work in enumerate(self._waiting, 1):
            work.put(Queued(position))

    def _worker_failed(self, error: SquishError) -> None:
        """Fail what the worker held. Who still waits gets a new worker, unless the model could not even be loaded."""
        was_loaded = self.loaded is not None
        self.state = "failed"
        self.error = error
        if was_loaded and isinstance(error, WorkerDied):
            self._ask_again(error)
            self._fail_running(error)
        else:
            self._fail_all(error)

    def _ask_again(self, error: SquishError) -> None:
        """Requests of which a dead worker has said nothing go to a new one, once: it may have been dead before."""
        unheard = [each for each in self._running.items() if not each[1].heard and each[1].attempts < _ATTEMPTS]
        for request, work in reversed(unheard):
            del self._running[request]
            if work.cancelled:
                work.finish_unsent()
            else:
                work.sent = False
                self._waiting.appendleft(work)
        if unheard:
            self._warn(f"{error.message} Requests that it had not begun go to a new one.")

    def _fail_running(self, error: SquishError) -> None:
        running, self._running = self._running, {}
        for work in running.values():
            work.fail(error)

    def _fail_all(self, error: SquishError) -> None:
        self._fail_running(error)
        while self._waiting:
            self._waiting.popleft().fail(error)
        for ready in self._became_ready:
            if not ready.done():
                ready.set_exception(error)
        self._became_ready.clear()

    def _start_idle_timer(self) -> None:
        self._stop_idle_timer()
        if self._keep_alive >= 0 and not self._pinned:
            self._idle_timer = asyncio.get_running_loop().call_later(self._keep_alive, self._unload_idle)

    def _stop_idle_timer(self) -> None:
        if self._idle_timer:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _unload_idle(self) -> None:
        if self._task and not self._busy:
            self._task.cancel()
