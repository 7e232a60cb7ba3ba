"""One loaded model at work: a one-way loop of drain, step, collect over mlx-lm's BatchGenerator.

Everything here belongs to the MLX thread. Prompts arrive tokenized; events leave as one frame a step. It knows neither
sockets nor templates.
"""

from __future__ import annotations

import copy
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from squish.errors import EngineError, InvalidInput, SquishError
from squish.generation import GenerationEvent, Prefill, TokenLogprob
from squish.ipc.frames import Cancel, Events, Failed, FromWorker, WireError
from squish.worker import device
from squish.worker.adapters.prefixes import Prefixes
from squish.worker.adapters.rows import Tag, untagged
from squish.worker.batch import Batch
from squish.worker.cache.branches import PART
from squish.worker.cache.prefix import BLOCK, PrefixCache
from squish.worker.cpu.fusion import caches_by_row, caches_of_mlx
from squish.worker.output import logprobs
from squish.worker.pace import PrefillPace
from squish.worker.rows import BatchRow, Prepared, RowMaker
from squish.worker.speculation.draft_model import DraftModel

if TYPE_CHECKING:
    from squish.worker.adapters.layers import Adapters
    from squish.worker.group.leader import Leading

_ATTEMPTS = 2
_FIT_AFTER = 60.0  # idle seconds after which the prefix cache is made smaller where memory is short
_SAVE_SECONDS = 2.0  # for which what of it is not on disk may keep the end of the worker waiting


@dataclass(frozen=True, slots=True)
class Stop:
    """The worker is to end."""


@dataclass(frozen=True, slots=True)
class PrefixSaved:
    """A file of the prefix cache is written, and the next may be begun."""


Inbox = queue.SimpleQueue[Prepared | Cancel | Stop | PrefixSaved]


class Runner:
    """Runs rows of many requests in one continuous batch.

    model, tokenizer: as mlx_lm loads them. context_length in tokens. prefix: its budget is for the KV caches of
    running rows too. send: takes a frame to the front process. lookup: answers may be guessed from what stands in
    their prompts. draft: a model that guesses them. group: the model itself, where it announces its passes to other
    ranks.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        context_length: int,
        prefix: PrefixCache,
        inbox: Inbox,
        send: Callable[[FromWorker], None],
        *,
        lookup: bool = False,
        draft: DraftModel | None = None,
        group: Leading | None = None,
    ) -> None:
        self._model = model
        self._group = group
        self._adapters: Adapters | None = None
        self._lookup = lookup
        self._draft = draft
        self._inbox = inbox
        self._send = send
        self._use_numpy = device.on_cpu()
        self._maker = RowMaker(tokenizer, context_length, self._use_numpy)
        self._vocabulary = logprobs.Vocabulary(tokenizer)
        self._rows: dict[int, BatchRow] = {}
        self._events: list[tuple[int, GenerationEvent]] = []
        self._prefix = prefix
        self._prefixes = Prefixes(prefix)
        self._pace = PrefillPace(on_cpu=self._use_numpy)
        self._beside = BLOCK if self._use_numpy else None  # beyond that, tokens that share a pass save nothing
        self._batch = self._new_batch()

    def run(self) -> None:
        """Work until Stop arrives."""
        while self._drain():
            if self._rows:
                self._step()
                self._prefix.tend(busy=True)
            self._flush()
        self._batch.close()
        self._prefix.save(_SAVE_SECONDS)

    def _new_batch(self, *, tagged: bool = False) -> Batch:
        """tagged: its rows may have adapters."""
        self._tagged = tagged
        return Batch(
            self._adapters.tagged if self._adapters and tagged else self._model,
            ends=self._maker.eos,
            lookup=self._lookup,
            draft=self._draft,
            hold=None if self._group else lambda: not self._inbox.empty(),  # ranks compute what they are told at once
            stream=mx.default_stream(mx.default_device()),
        )

    def _drain(self) -> bool:
        """Take in what has arrived; wait only when there is nothing to do. False when it is time to end."""
        while True:
            idle = not self._rows and not self._events
            if idle:
                self._prefix.tend(busy=False)
                if self._group:
                    self._group.settle()
            try:
                item = self._inbox.get(block=idle, timeout=_FIT_AFTER if idle and self._prefixes.nbytes else None)
            except queue.Empty:
                if not idle:
                    return True
                self._prefixes.fit()
                continue
            if isinstance(item, Stop):
                return False
            self._take(item)

    def _take(self, item: Prepared | Cancel | PrefixSaved) -> None:
        if isinstance(item, Prepared):
            self._insert(item)
        elif isinstance(item, Cancel):
            self._cancel(item.request)

    def _look(self) -> bool:
        """The same in the middle of a step, which ends early if it is False."""
        while not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, Stop):
                self._inbox.put(item)
                return False
            self._take(item)
        return True

    def _insert(self, item: Prepared) -> None:
        try:
            self._admit(item.adapter)
        except (SquishError, RuntimeError, ValueError) as error:  # the last two are MLX's
            self._send(Failed(item.request, _failure(error)))
            return
        for row in self._maker.first_choices(item):
            self._submit(row)

    def _admit(self, adapter: str | None) -> None:
        """Let the batch take rows with an adapter, which is read if it is new. Raises what reading it raises."""
        if adapter is None:
            if self._tagged and not self._rows:
                self._batch = self._new_batch()
            return
        if self._group:
            raise InvalidInput("A model that several ranks hold answers without adapters.", param="model")
        from squish.worker.adapters.layers import Adapters  # most workers never need it

        self._adapters = self._adapters or Adapters(self._model)
        if self._adapters.load(adapter):
            self._prefixes.forget(adapter)
        if self._tagged:
            return
        rows = dict(self._rows)
        for uid in rows:
            self._leave(uid)
        self._rows.clear()
        self._batch = self._new_batch(tagged=True)
        for row in rows.values():
            self._submit(row)

    def _submit(self, row: BatchRow) -> None:
        """Put a row into the batch: its prompt, and what it has generated already."""
        tokens = row.tokens
        cached, caches = self._prefixes.of(row.adapter).take(tokens)
        self._enter(row, row.segments(cached, self._prefix, self._maker.eos), cached, caches)
        if len(tokens) - cached == 1:  # there is nothing to share but what the prefix cache gives each
            followers, row.followers = row.followers, []
            for follower in followers:
                self._submit(follower)

    def _enter(self, row: BatchRow, segments: list[list[int]], cached: int, caches: list[Any] | None) -> None:
        tokens = row.tokens
        if not row.output.tokens:
            row.output.cached_tokens = cached
        row.processed, row.answering = 0, False
        self._maker.prepare(row)
        [uid] = self._batch.insert_segments(
            [segments],
            max_tokens=[row.max_tokens - len(row.output.tokens)],
            caches=[self._caches(row, caches)],
            all_tokens=[tokens[:cached]],
            samplers=[row.sampler],
            logits_processors=[[row.processor] if row.processor else []],
        )
        self._rows[uid] = row
        self._batch.turns.owners[uid] = row.owner
        alone = row.adapter is None and not self._group  # so all of a block is one node, which gives a row's end
        if self._prefix.exact and self._prefix.trimmable and not row.followers and alone:
            self._batch.in_one_pass.add(uid)

    def _caches(self, row: BatchRow, caches: list[Any] | None) -> list[Any] | None:
        """What the batch is to hold of a row's caches, with its tag where rows may have adapters, or in a group."""
        if self._group:
            own = self._group.untagged(caches or []) or make_prompt_cache(self._model)
            return [*(caches_by_row(self._model, own) or own), self._group.row(caches)]
        if not self._tagged:
            return caches_by_row(self._model, caches)
        caches = caches or make_prompt_cache(self._model)
        return [*(caches_by_row(self._model, caches) or caches), Tag(row.adapter)]

    def _let_follow(self, uid: int) -> None:
        """All of a row's prompt but its last token is processed: the other choices go on from there."""
        row = self._rows[uid]
        caches, tokens = self._batch.extract_cache([uid])[uid]
        _, caches = untagged(caches)
        followers, row.followers = row.followers, []
        for follower in followers:
            self._enter(follower, [[follower.prompt[-1]]], len(tokens), [copy.copy(cache) for cache in caches])

    def _cancel(self, request: int) -> None:
        uids = [uid for uid, row in self._rows.items() if row.request == request]
        for uid in uids:
            row = self._rows[uid]
            self._end(uid, row.output.finish("cancelled"))
            for follower in row.followers:
                self._events.extend((request, event) for event in follower.output.finish("cancelled"))
        self._flush()  # whoever stopped it sees that at once; to keep what was computed takes as long as some steps
        for uid in uids:
            self._leave(uid)

    def _step(self) -> None:
        started = time.monotonic()
        try:
            new = self._read()
            prompts, generated = self._batch.decode()
        except Exception as error:  # noqa: BLE001 - the batch has lost every row it held, whatever went wrong
            self._recover(error)
            return
        # Only now: a prompt that begins to answer in the pass that reads it is computed with its first token.
        self._pace.measured(new + self._count(prompts), time.monotonic() - started)
        self._hand_out(generated)

    def _read(self) -> int:
        """Read prompts for as long as the answers may stand still; returns the tokens that are new.

        That is in pieces, between which requests come in. The first of a client that has no other is read a little
        further than that, rather than let it wait for a step of all the others.
        """
        left = self._pace.step_size(decoding=any(row.answering for row in self._rows.values()))
        new, over = 0, False
        while self._batch.unread:
            read = self._read_piece(min(left, self._pace.piece_size))
            new, left = new + read, left - read
            known = {row.owner for row in self._rows.values()}
            if over or not self._look():
                break
            if left < BLOCK:
                over = any(row.owner not in known for row in self._rows.values())
                if not over:
                    break
                left = BLOCK
        return new

    def _read_piece(self, size: int) -> int:
        """Read prompts in one pass, and hand out the first tokens that it gives."""
        prompts, first = self._batch.read(size, self._beside)
        new = self._count(prompts)
        for response in prompts:
            row = self._rows[response.uid]
            if response.end_of_segment and not response.end_of_prompt and not self._prefix.trimmable:
                caches, tokens = self._batch.extract_cache([response.uid])[response.uid]
                self._remember(caches, tokens, part=PART if len(tokens) in row.branches else 1)
            if row.followers and response.progress[0] == response.progress[1] - 1:
                self._let_follow(response.uid)
        if first:
            self._hand_out(first)
            self._flush()
        return new

    def _count(self, prompts: list[Any]) -> int:
        """Take note of how far prompts are read; returns the tokens that are new."""
        processed = 0
        for response in prompts:
            row = self._rows[response.uid]
            processed += response.progress[0] - row.processed
            row.processed = response.progress[0]
            if not response.end_of_prompt:
                done, total = response.progress
                self._events.append((row.request, Prefill(row.index, done, total)))
        return processed

    def _hand_out(self, generated: list[Any]) -> None:
        for response, entry in zip(generated, self._logprobs(generated), strict=True):
            if response.finish_reason is not None:
                self._remember(response.prompt_cache, response.all_tokens)
            self._collect(response, entry)

    def _logprobs(self, generated: list[Any]) -> list[TokenLogprob | None]:
        """Of each new token, what its row wants to know of it."""
        asked = [response for response in generated if self._rows[response.uid].sampling.logprobs]
        wanted = [
            logprobs.LogprobRequest(response.token, response.logprobs, self._rows[response.uid].sampling.top_logprobs)
            for response in asked
        ]
        entries = iter(logprobs.read(wanted, self._vocabulary, self._use_numpy))
        return [next(entries) if self._rows[response.uid].sampling.logprobs else None for response in generated]

    def _collect(self, response: Any, entry: TokenLogprob | None) -> None:
        uid, finish = response.uid, response.finish_reason
        row = self._rows.get(uid)
        if row is None:  # it has ended with an earlier token of this step, or failed with another row
            return
        if row.error:
            self._abandon(row.request, row.error)
            return
        row.answering = True
        row.output.guessed(response.drafted, response.accepted)
        complete = row.complete and not response.more  # the grammar has seen all tokens of this step
        events, ended = row.output.feed(response.token, "stop" if complete else row.why(finish), entry)
        if not ended:
            self._events.extend((row.request, event) for event in events)
            return
        if finish is None:  # a stop string or a filled format ended it; the batch does not know yet
            self._leave(uid)
        self._end(uid, events)

    def _abandon(self, request: int, error: Exception) -> None:
        """A row cannot go on, and its request with it; the other requests do not notice."""
        for uid in [uid for uid, row in self._rows.items() if row.request == request]:
            self._leave(uid)
            self._end(uid, [])
        self._flush()
        self._send(Failed(request, _failure(error)))

    def _leave(self, uid: int) -> None:
        """Take a row out of the batch; what was computed for it stays known."""
        for caches, tokens in self._batch.remove([uid], return_prompt_caches=True).values():
            self._remember(caches, tokens)

    def _remember(self, caches: list[Any], tokens: list[int], part: int = 1) -> None:
        """Keep a cache for what begins in the same way; one that takes more than a part of the budget is not kept."""
        adapter, caches = untagged(caches)
        prefix = self._prefixes.of(adapter)
        if prefix.wants(tokens):
            kept = self._group.kept(caches) if self._group else caches
            prefix.put(list(tokens), caches_of_mlx(kept), part)
            self._prefixes.keep_to(self._prefix.budget - self._batch.prompt_cache_nbytes, prefix)

    def _end(self, uid: int, events: list[GenerationEvent]) -> None:
        row = self._rows.pop(uid)
        self._batch.turns.owners.pop(uid, None)
        self._events.extend((row.request, event) for event in events)

    def _recover(self, error: Exception) -> None:
        """Build a new batch and go on from the tokens each row has; what fails again fails its request."""
        if self._group and self._group.broken:
            raise self._group.lost(error) from error
        rows, self._rows = list(self._rows.values()), {}
        self._batch = self._new_batch(tagged=self._tagged)
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


def _failure(error: Exception) -> WireError:
    if isinstance(error, SquishError):
        return WireError.of(error)
    return WireError.of(EngineError(f"The model failed while generating: {type(error).__name__}: {error}"))
