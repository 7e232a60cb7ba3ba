"""The way in: from frames to the runner's inbox, by way of the tokenizer threads.

Tokenizing has threads of its own, because a long template would stall every stream if the MLX thread did it. There are
two lanes: prompts of which one alone can take seconds have their own, so that the others overtake them. A request that
is cancelled here ends at once, whether it waits or is being tokenized; any later, in the runner.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from squish.errors import InvalidInput, SquishError
from squish.generation import Accepted, ChatPrompt, Finished, Prompt, TextPrompt, Timings, Usage
from squish.ipc.frames import Cancel, Counted, CountTokens, Embed, Events, Failed, FromWorker, Generate, WireError
from squish.worker.prompt.encoder import PromptEncoder
from squish.worker.prompt.turns import Owner
from squish.worker.rows import Prepared
from squish.worker.runner import Inbox

_LONG = 1 << 17  # characters; tokenizing so many takes about as long as a step of the batch

_NO_VECTORS = "This model writes answers, and computes no embeddings."

_Lane = queue.SimpleQueue[tuple[Generate | CountTokens, float]]


class _Abandoned(Exception):
    """Nobody waits for this request any more."""


class Intake:
    """Tokenizes the requests of each lane in order. `take` and `cancel` belong to the reader thread."""

    def __init__(self, inbox: Inbox, send: Callable[[FromWorker], None]) -> None:
        self._inbox = inbox
        self._send = send
        self._lanes: dict[bool, _Lane] = {False: queue.SimpleQueue(), True: queue.SimpleQueue()}
        self._lock = threading.Lock()
        self._pending: dict[int, int] = {}  # the rows of each request that has not reached the runner

    def take(self, frame: Generate | CountTokens | Embed) -> None:
        if isinstance(frame, Embed):
            self._send(Failed(frame.request, WireError.of(InvalidInput(_NO_VECTORS, param="model"))))
            return
        if isinstance(frame, Generate):
            with self._lock:
                self._pending[frame.request] = len(frame.prompts) * frame.sampling.n
        self._lanes[sum(map(_characters, frame.prompts)) > _LONG].put((frame, time.monotonic()))

    def cancel(self, frame: Cancel) -> None:
        with self._lock:
            rows = self._pending.pop(frame.request, None)
            if rows is None:
                self._inbox.put(frame)
                return
        nothing = Usage(0, 0), Timings(0.0, 0.0)
        self._send(Events(tuple((frame.request, Finished(index, "cancelled", *nothing)) for index in range(rows))))

    def run(self, encoder: PromptEncoder, *, long: bool) -> None:
        """Tokenize the long prompts or the others, without end."""
        while True:
            frame, arrived = self._lanes[long].get()
            try:
                if isinstance(frame, CountTokens):
                    if frame.held_to is not None:
                        encoder.require_holdable(frame.held_to)
                    self._send(Counted(frame.request, tuple(encoder.count(prompt) for prompt in frame.prompts)))
                else:
                    self._prepare(encoder, frame, arrived)
            except _Abandoned:
                pass
            except SquishError as error:
                self._fail(frame, WireError.of(error))
            except Exception as error:  # noqa: BLE001 - a model's own template: its request fails, the thread lives on
                message = f"The model's tokenizer failed: {type(error).__name__}: {error}"
                self._fail(frame, WireError("engine_error", message))

    def _prepare(self, encoder: PromptEncoder, frame: Generate, arrived: float) -> None:
        def proceed() -> None:
            if frame.request not in self._pending:
                raise _Abandoned

        encoded = []
        for prompt in frame.prompts:
            proceed()
            encoded.append(encoder.prepare(prompt, frame.sampling, proceed))
        tokens = [row for row, _ in encoded]
        counts = tuple(len(row) for row in tokens for _ in range(frame.sampling.n))
        with self._lock:
            if self._pending.pop(frame.request, None) is None:
                raise _Abandoned
            plans = tuple(plan for _, plan in encoded)
            notes = plans[0].grammar.notes if plans and plans[0].grammar else ()
            self._send(Events(((frame.request, Accepted(counts, notes)),)))
            owner = Owner(frame.account, frame.background)
            self._inbox.put(Prepared(frame.request, tokens, frame.sampling, arrived, plans, frame.adapter, owner))

    def _fail(self, frame: Generate | CountTokens, failure: WireError) -> None:
        with self._lock:
            if isinstance(frame, Generate) and self._pending.pop(frame.request, None) is None:
                return
        self._send(Failed(frame.request, failure))


def _characters(prompt: Prompt) -> int:
    """About how much text there is to tokenize."""
    match prompt:
        case ChatPrompt(messages=messages, tools=tools):
            calls = [call.arguments for message in messages for call in message.tool_calls]
            said = [text for message in messages for text in (message.content, message.reasoning)]
            return sum(map(len, [*said, *calls, *(tool.parameters for tool in tools)]))
        case TextPrompt(text=text):
            return len(text)
        case _:
            return 0
