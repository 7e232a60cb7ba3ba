"""The way in: from frames to the runner's inbox, by way of the tokenizer thread.

Tokenizing has a thread of its own, because a long template would stall every stream if the MLX thread did it. A request
that is cancelled while it is tokenized ends here; any later, in the runner.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from squish.errors import SquishError
from squish.generation import Accepted, Finished, Timings, Usage
from squish.ipc.frames import Cancel, Counted, CountTokens, Events, Failed, Failure, FromWorker, Generate
from squish.worker.prompt import PromptEncoder
from squish.worker.rows import Prepared
from squish.worker.runner import Inbox


class Intake:
    """Tokenizes requests in order. `take` and `cancel` belong to the reader thread, `run` is the tokenizer thread."""

    def __init__(self, inbox: Inbox, send: Callable[[FromWorker], None]) -> None:
        self._inbox = inbox
        self._send = send
        self._requests: queue.SimpleQueue[tuple[Generate | CountTokens, float]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending: set[int] = set()

    def take(self, frame: Generate | CountTokens) -> None:
        if isinstance(frame, Generate):
            with self._lock:
                self._pending.add(frame.request)
        self._requests.put((frame, time.monotonic()))

    def cancel(self, frame: Cancel) -> None:
        with self._lock:
            if frame.request in self._pending:
                self._pending.remove(frame.request)
            else:
                self._inbox.put(frame)

    def run(self, encoder: PromptEncoder) -> None:
        """Tokenize for ever."""
        while True:
            frame, arrived = self._requests.get()
            try:
                if isinstance(frame, CountTokens):
                    self._send(Counted(frame.request, tuple(encoder.count(prompt) for prompt in frame.prompts)))
                else:
                    self._prepare(encoder, frame, arrived)
            except SquishError as error:
                self._fail(frame, Failure.of(error))
            except Exception as error:  # noqa: BLE001 - a model's own template: its request fails, the thread lives on
                message = f"The model's tokenizer failed: {type(error).__name__}: {error}"
                self._fail(frame, Failure("engine_error", message))

    def _prepare(self, encoder: PromptEncoder, frame: Generate, arrived: float) -> None:
        encoded = [encoder.prepare(prompt, frame.sampling) for prompt in frame.prompts]
        tokens = [row for row, _ in encoded]
        counts = tuple(len(row) for row in tokens for _ in range(frame.sampling.n))
        with self._lock:
            if frame.request in self._pending:
                self._pending.remove(frame.request)
                plans = tuple(plan for _, plan in encoded)
                notes = plans[0].grammar.notes if plans and plans[0].grammar else ()
                self._send(Events(((frame.request, Accepted(counts, notes)),)))
                self._inbox.put(Prepared(frame.request, tokens, frame.sampling, arrived, plans))
                return
        nothing = Usage(0, 0), Timings(0.0, 0.0)
        ends = [(frame.request, Finished(index, "cancelled", *nothing)) for index in range(len(counts))]
        self._send(Events(tuple(ends)))

    def _fail(self, frame: Generate | CountTokens, failure: Failure) -> None:
        with self._lock:
            self._pending.discard(frame.request)
        self._send(Failed(frame.request, failure))
