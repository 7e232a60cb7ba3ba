"""One model seen from asyncio: its worker, its waiting queue, its requests.

An Engine loads its model on first use, starts requests as places become free (queue.py), hands every request its events
and unloads after the keep-alive (keep_alive.py). It knows no names, no store and no other model: that is manager.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Literal

import msgspec

from squish.errors import EngineError, InvalidInput, LoadFailed, SquishError, WorkerDied
from squish.generation import GenerationEvent, Loading, Preparing, Prompt, ResponseFormat
from squish.ipc.frames import Cancel, Compiling, Counted, CountTokens, Embedded, Events, Failed, Load, Loaded, Warned
from squish.ipc.group_worker import GroupWorker
from squish.ipc.limits import memory_limit
from squish.ipc.process import Worker
from squish.sessions.embedding import EmbeddingWork
from squish.sessions.keep_alive import KeepAlive
from squish.sessions.queue import ATTEMPTS, RequestQueue
from squish.sessions.work import Work

State = Literal["unloaded", "loading", "ready", "failed"]


class Limits(msgspec.Struct, frozen=True):
    """max_queue: requests that may wait; max_concurrency: rows decoded at the same time; keep_alive: idle seconds."""

    max_queue: int
    max_concurrency: int
    keep_alive: float


class Engine:
    """The one place where the requests for a model meet its worker. All methods belong to the event loop's thread."""

    def __init__(
        self,
        path: Path,
        spawn: Callable[[], Awaitable[Worker | GroupWorker]],
        limits: Limits,
        *,
        on_loaded: Callable[[], None],
        on_ended: Callable[[], None],
        on_warning: Callable[[str], None],
        cpu_precision: Literal["int8", "float32"] = "int8",
        wire_weights: bool = False,
        prompt_lookup: bool = True,
        draft: Path | None = None,
        kv_bits: int | None = None,
    ) -> None:
        self.path = path
        guesses = str(draft) if draft else None
        self._load = Load(str(path), cpu_precision, wire_weights, prompt_lookup, guesses, kv_bits=kv_bits)
        self.state: State = "unloaded"
        self.loaded: Loaded | None = None
        self.error: SquishError | None = None
        self.compiling = False  # while it is loading: what computes is made first
        self._spawn = spawn
        self._after_load = on_loaded
        self._after_end = on_ended
        self._warn = on_warning
        self._queue = RequestQueue(limits.max_queue, limits.max_concurrency)
        self._keep_alive = KeepAlive(limits.keep_alive, self._unload_idle)
        self._worker: Worker | GroupWorker | None = None
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # the current one and those that still wait for their worker's end
        self._ids = count(1)
        self._became_ready: list[asyncio.Future[Loaded]] = []
        self._counting: dict[int, asyncio.Future[tuple[int, ...] | None]] = {}

    @property
    def running(self) -> int:
        """Requests that hold a place in the batch."""
        return len(self._queue.running)

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    @property
    def idle_since(self) -> float | None:
        """Since when a loaded model has had nothing to do, in the loop's time; None while it has, or is not loaded."""
        return None if self.loaded is None or self._busy else self._keep_alive.idle_since

    @property
    def _busy(self) -> bool:
        return bool(self._queue or self._counting)

    @property
    def _idle(self) -> bool:
        return self.state == "ready" and not self._busy

    @property
    def pinned(self) -> bool:
        """Whether the model stays in memory, however long it is idle and whatever else asks for room."""
        return self._keep_alive.pinned

    def pin(self, pinned: bool) -> None:
        self._keep_alive.pin(pinned, idle=self._idle)

    @property
    def unloads_in(self) -> float | None:
        """Seconds until the model is unloaded if nobody asks for it; None where it is kept."""
        return self._keep_alive.remaining

    def keep(self, seconds: float) -> None:
        """How long the model stays once it is idle, from now on and until a request says otherwise."""
        self._keep_alive.stay(seconds, idle=self._idle)

    @property
    def kv_bits(self) -> int | None:
        """Those that the model's KV cache is loaded with; None: as is best."""
        return self._load.kv_bits

    def take_kv_bits(self, bits: int) -> None:
        """From now on the model's KV cache has so many bits a number: a model that has others is loaded anew.

        Also one that is being loaded; a count of tokens ends without a figure. Raises InvalidInput while somebody has
        asked it something. A model that has no choice is left as it is.
        """
        loaded = self.loaded
        if bits == self._load.kv_bits or (loaded and (bits == loaded.kv_bits or not loaded.kv_choice)):
            return
        if self._queue:
            doing = "loading for another request" if self.state == "loading" else "answering"
            problem = f"kv_bits {bits}: the model would have to be reloaded for that, and it is {doing}."
            raise InvalidInput(problem, hint="Try again when it is idle.", param="kv_bits")
        self._load = msgspec.structs.replace(self._load, kv_bits=bits)
        if self._task and self._worker:  # one that is still to come is told the new number
            self._task.cancel()

    @property
    def pid(self) -> int | None:
        return self._worker.pid if self._worker else None

    @property
    def pids(self) -> list[int]:
        """The processes on this machine that hold the model."""
        return self._worker.pids if self._worker else []

    def admit(self, work: Work) -> None:
        """Give a request a place, or a place in the queue. Raises QueueFull or InvalidInput; never waits."""
        if self._queue.admit(work):
            self._start(work)

    def cancel(self, work: Work) -> None:
        """Take a request out, wherever it is. Its place is free when the worker has confirmed it."""
        if self._queue.withdraw(work) or (request := self._queue.number_of(work)) is None:
            return
        if work.sent and self._worker:
            work.cancelled = True
            self._worker.send(Cancel(request))
        else:
            work.finish_unsent()
            self._release(request)

    async def load(self) -> Loaded:
        """Load now and wait until it is done. Raises what made it fail."""
        if self.loaded is not None:
            return self.loaded
        ready: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._became_ready.append(ready)
        self._ensure_worker()
        return await ready

    async def count(self, prompts: tuple[Prompt, ...], held_to: ResponseFormat | None = None) -> tuple[int, ...] | None:
        """Tokens of each prompt; None while the model is not loaded: a count loads nothing. Raises InvalidInput.

        held_to: a format that is looked at as well, as in CountTokens.
        """
        if self.loaded is None or self._worker is None:
            return None
        request = next(self._ids)
        counted: asyncio.Future[tuple[int, ...] | None] = asyncio.get_running_loop().create_future()
        self._counting[request] = counted
        self._worker.send(CountTokens(request, prompts, held_to))
        try:
            return await counted
        finally:
            del self._counting[request]
            self._rest()

    async def count_loading(self, prompts: tuple[Prompt, ...]) -> tuple[int, ...]:
        """The same, for which the model is loaded if need be. Raises also what made that fail."""
        for _ in range(ATTEMPTS):
            await self.load()
            counts = await self.count(prompts)
            if counts is not None:
                return counts
        raise EngineError("The model was unloaded while it counted.")

    async def close(self) -> None:
        """End the worker and wait for its end; requests in flight fail."""
        self._keep_alive.stop()
        self._fail_all(EngineError("The model was unloaded while it answered."))
        if self._task:
            self._task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Work) -> None:
        self._keep_alive.stop()
        request = next(self._ids)
        self._queue.running[request] = work
        if work.keep_alive is not None:
            self._keep_alive.stay(work.keep_alive, idle=False)
        if self.loaded and self._worker:
            self._send(request, work)
        else:
            work.put(Loading(self.compiling))
            self._ensure_worker()

    def _send(self, request: int, work: Work) -> None:
        assert self._worker is not None
        work.begin()
        work.put(Preparing(work.grammar))
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
            self.loaded, self.compiling = None, False
            self._task = None
            self._keep_alive.stop()
            for request in self._counting:
                self._settle_count(request, None)
            if self.state != "failed":
                self.state = "unloaded"
            self._after_end()
            self._queue.requeue_unheard()  # what was admitted after the idle time ended, and before the worker did
            self._queue.fail_running(EngineError("The model was unloaded while it answered."))
            self._pump()
            if self._became_ready:  # it is to be loaded otherwise
                self._ensure_worker()
            if worker:
                if not was_loaded:
                    worker.kill()  # it has nothing to save, and does not listen while it imports and loads
                await worker.close()

    async def _run_worker(self) -> None:
        self._worker = await self._spawn()
        self._worker.send(self._load)
        while True:
            match await self._worker.receive():
                case Compiling(under_way=under_way):
                    self._on_compiling(under_way)
                case Loaded() as loaded:
                    self._on_loaded(loaded)
                case Events(items=items):
                    for request, event in items:
                        self._on_event(request, event)
                case Embedded(request=request, embeddings=embeddings):
                    if isinstance(work := self._queue.running.get(request), EmbeddingWork):
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
                    if work := self._queue.running.get(request):
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

    def _on_compiling(self, under_way: bool) -> None:
        self.compiling = under_way
        if under_way:
            self._warn("The CPU engine is compiled for this machine, which takes a minute or two, once.")
        for work in self._queue.running.values():
            work.put(Loading(under_way))

    def _on_loaded(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.state = "ready"
        for ready in self._became_ready:
            if not ready.done():
                ready.set_result(loaded)
        self._became_ready.clear()
        for request, work in list(self._queue.running.items()):
            self._send(request, work)
        self._pump()
        self._after_load()

    def _on_event(self, request: int, event: GenerationEvent) -> None:
        work = self._queue.running.get(request)
        if work is None:
            return
        work.heard = True
        work.put(event)
        if not work.unfinished:
            self._release(request)

    def _release(self, request: int) -> None:
        del self._queue.running[request]
        self._pump()

    def _pump(self) -> None:
        """Start what has a place now."""
        moved = False
        while work := self._queue.next():
            self._start(work)
            moved = True
        if moved:
            self._queue.announce_positions()
        self._rest()

    def _rest(self) -> None:
        """With nothing to do, the keep-alive begins."""
        if self._idle:
            self._keep_alive.begin()

    def _worker_failed(self, error: SquishError) -> None:
        """Fail what the worker held. Those that wait get a new worker, unless the model could not be loaded at all."""
        was_loaded = self.loaded is not None
        self.state = "failed"
        self.error = error
        if was_loaded and isinstance(error, WorkerDied):
            if self._queue.requeue_unheard():
                self._warn(f"{error.message} Requests that it had not begun go to a new one.")
            self._queue.fail_running(error)
        else:
            self._fail_all(error)

    def _fail_all(self, error: SquishError) -> None:
        self._queue.fail_all(error)
        for ready in self._became_ready:
            if not ready.done():
                ready.set_exception(error)
        self._became_ready.clear()

    def _unload_idle(self) -> None:
        if self._task and not self._busy:
            self._task.cancel()
