"""One loaded model at work: a one-way loop of drain, step, collect over mlx-lm's BatchGenerator.

Everything here belongs to the MLX thread. Prompts arrive tokenized; events leave as one frame a step. It knows neither
sockets nor templates.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator

from squish.errors import EngineError, SquishError
from squish.generation import FinishReason, GenerationEvent, Prefill, SamplingParams
from squish.protocol import Cancel, Events, Failed, Failure, FromWorker
from squish.worker.output import RowOutput
from squish.worker.pace import PrefillPace
from squish.worker.prefix import BLOCK, PrefixCache
from squish.worker.sampling import Sampler, Samplers

_ATTEMPTS = 2
_SAVE_AFTER = 60.0  # idle seconds after which the prefix cache goes to disk
_SAVE_SECONDS = 2.0  # for which it may keep the end of the worker waiting


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose prompts are tokenized. tokens: one list per row, each at least one token."""

    request: int
    tokens: list[list[int]]
    sampling: SamplingParams
    arrived: float


@dataclass(frozen=True, slots=True)
class Stop:
    """The worker is to end."""


Inbox = queue.SimpleQueue[Prepared | Cancel | Stop]


@dataclass(slots=True)
class Row:
    """A row that the batch works on."""

    request: int
    index: int
    prompt: list[int]
    max_tokens: int
    sampler: Sampler
    output: RowOutput
    attempts: int = 1


class Runner:
    """Runs rows of many requests in one continuous batch.

    model, tokenizer: as mlx_lm loads them. context_length in tokens. prefix: its budget is for the KV caches of
    running rows too. send: takes a frame to the front process.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        context_length: int,
        prefix: PrefixCache,
        inbox: Inbox,
        send: Callable[[FromWorker], None],
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._inbox = inbox
        self._send = send
        self._eos = frozenset(tokenizer.eos_token_ids)
        self._samplers = Samplers(use_numpy=mx.default_device() == mx.Device(mx.cpu))
        self._rows: dict[int, Row] = {}
        self._decoding: set[int] = set()
        self._events: list[tuple[int, GenerationEvent]] = []
        self._prefix = prefix
        self._pace = PrefillPace()
        self._progress: dict[int, int] = {}
        self._batch = self._new_batch()

    def run(self) -> None:
        """Work until Stop arrives."""
        while self._drain():
            if self._rows:
                self._step()
            self._flush()
        self._batch.close()
        self._prefix.save(_SAVE_SECONDS)

    def _new_batch(self) -> BatchGenerator:
        return BatchGenerator(
            self._model,
            stop_tokens=[[token] for token in self._eos],
            stream=mx.default_stream(mx.default_device()),
        )

    def _drain(self) -> bool:
        """Take in what has arrived; wait only when there is nothing to do. False when it is time to end."""
        while True:
            idle = not self._rows and not self._events
            try:
                item = self._inbox.get(block=idle, timeout=_SAVE_AFTER if idle and self._prefix.unsaved else None)
            except queue.Empty:
                if not idle:
                    return True
                self._prefix.save(_SAVE_SECONDS)
                continue
            match item:
                case Stop():
                    return False
                case Prepared():
                    self._insert(item)
                case Cancel(request=request):
                    self._cancel(request)

    def _insert(self, item: Prepared) -> None:
        for index, prompt in enumerate(item.tokens):
            row = Row(
                request=item.request,
                index=index,
                prompt=prompt,
                max_tokens=min(item.sampling.max_tokens, self._context_length - len(prompt)),
                sampler=self._samplers.of_row(item.sampling, index),
                output=RowOutput(
                    index, self._tokenizer.detokenizer, self._eos, item.sampling.stop, len(prompt), item.arrived
                ),
            )
            self._submit(row)

    def _submit(self, row: Row) -> None:
        """Put a row into the batch: its prompt, and what it has generated already."""
        tokens = row.prompt + row.output.tokens
        cached, caches = self._prefix.take(tokens)
        if not row.output.tokens:
            row.output.cached_tokens = cached
        [uid] = self._batch.insert_segments(
            [self._segments(tokens, cached)],
            max_tokens=[row.max_tokens - len(row.output.tokens)],
            caches=[caches],
            all_tokens=[tokens[:cached]],
            samplers=[row.sampler],
        )
        self._rows[uid] = row

    def _segments(self, tokens: list[int], cached: int) -> list[list[int]]:
        """What is left to process, cut where a cache that cannot be trimmed later has to be snapshotted now."""
        cut = (len(tokens) - 1) // BLOCK * BLOCK
        if self._prefix.trimmable or cut <= cached:
            return [tokens[cached:]]
        return [tokens[cached:cut], tokens[cut:]]

    def _cancel(self, request: int) -> None:
        for uid in [uid for uid, row in self._rows.items() if row.request == request]:
            row = self._rows[uid]
            self._leave(uid)
            self._end(uid, row.output.finish("cancelled"))

    def _step(self) -> None:
        self._batch.prefill_step_size = self._pace.step_size(decoding=bool(self._decoding))
        started = time.monotonic()
        try:
            prompts, generated = self._batch.next()
        except Exception as error:  # noqa: BLE001 - the batch has lost every row it held, whatever went wrong
            self._recover(error)
            return
        processed = 0
        for response in prompts:
            row = self._rows[response.uid]
            processed += response.progress[0] - self._progress.get(response.uid, 0)
            self._progress[response.uid] = response.progress[0]
            if not response.end_of_prompt:
                done, total = response.progress
                self._events.append((row.request, Prefill(row.index, done, total)))
            if response.end_of_segment and not response.end_of_prompt and not self._prefix.trimmable:
                self._remember(*self._batch.extract_cache([response.uid])[response.uid])
        self._pace.measured(processed, time.monotonic() - started)
        for response in generated:
            if response.finish_reason is not None:
                self._remember(response.prompt_cache, response.all_tokens)
            self._collect(response.uid, response.token, response.finish_reason)

    def _collect(self, uid: int, token: int, finish: FinishReason | None) -> None:
        row = self._rows[uid]
        self._decoding.add(uid)
        events, ended = row.output.feed(token, finish)
        if not ended:
            self._events.extend((row.request, event) for event in events)
            return
        if finish is None:  # a stop string ended it; the batch does not know yet
            self._leave(uid)
        self._end(uid, events)

    def _leave(self, uid: int) -> None:
        """Take a row out of the batch; what was computed for it stays known."""
        for caches, tokens in self._batch.remove([uid], return_prompt_caches=True).values():
            self._remember(caches, tokens)

    def _remember(self, caches: list[Any], tokens: list[int]) -> None:
        if self._prefix.wants(tokens):
            self._prefix.put(list(tokens), caches)
            self._prefix.shrink(self._prefix.budget - self._batch.prompt_cache_nbytes)

    def _end(self, uid: int, events: list[GenerationEvent]) -> None:
        row = self._rows.pop(uid)
        self._decoding.discard(uid)
        self._progress.pop(uid, None)
        self._events.extend((row.request, event) for event in events)

    def _recover(self, error: Exception) -> None:
        """Build a new batch and go on from the tokens each row has; what fails again fails its request."""
        rows, self._rows = list(self._rows.values()), {}
        self._decoding.clear()
        self._progress.clear()
        self._batch = self._new_batch()
        failed = {row.request for row in rows if row.attempts >= _ATTEMPTS}
        failure = _failure(error)
        self._flush()
        for request in failed:
            self._send(Failed(request, failure))
        for row in rows:
            if row.request not in failed:
                row.attempts += 1
                self._submit(row)

    def _flush(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._send(Events(tuple(events)))


def _failure(error: Exception) -> Failure:
    if isinstance(error, SquishError):
        return Failure.of(error)
    return Failure.of(EngineError(f"The model failed while generating: {type(error).__name__}: {error}"))


def now() -> float:
    """The clock of Prepared.arrived."""
    return time.monotonic()
