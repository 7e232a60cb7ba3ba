"""Owns the order in which the batch works: passes that read prompts, and a step of all rows that answer, in turns.

How it decodes is speculation/decoding.py's, and whose prompts are read is prompt/turns.py's. How many rows run at the
same time is for the front process to say. A prompt that is to wait for another's is taken out of the pass, with what is
read of it.

mlx-lm processes a prompt without its last token, then takes a step of all running rows, and then the last token by
itself: three times the weights are read before the first token is there. Where no number of a row depends on what is
computed beside it, the end of a prompt and its first token are one pass, which goes before the next step of the others,
and the token is handed out before it, too.

It reaches into BatchGenerator, whose version pyproject.toml bounds; a test compares its answers with those of mlx-lm's
order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, PromptProcessingBatch
from mlx_lm.models.cache import ArraysCache, make_prompt_cache

from squish.format import arguments
from squish.worker.cache.prefix import BLOCK
from squish.worker.prompt.turns import PromptTurns, WaitingPrompt
from squish.worker.speculation.decoding import Decoding
from squish.worker.speculation.draft_model import DraftModel

_TIDY_AFTER = 512  # steps, as mlx-lm does
# Code that counts padding in one of its layers' two states only.
_MISCOUNTS = frozenset({"nemotron_h"})


class Batch(BatchGenerator):  # type: ignore[misc]
    """mlx-lm's BatchGenerator.

    in_one_pass: rows that may be answered so: their caches are those of cpu/kv.py, and nobody wants them as they are
    before the last token. turns: whose prompts they are. lookup: whether decoding guesses from what was written before.
    draft: a model that guesses. hold: whether something else is to go before the next step; None: a step never waits.
    """

    _currently_processing: list[Any]
    _unprocessed_sequences: deque[Any]

    def __init__(
        self,
        model: Any,
        *,
        ends: frozenset[int],
        lookup: bool = False,
        draft: DraftModel | None = None,
        hold: Callable[[], bool] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, stop_tokens=[[token] for token in ends], **options)
        self.in_one_pass: set[int] = set()
        self.turns = PromptTurns(BLOCK)
        self._paused: dict[int, tuple[Any, Any]] = {}  # a batch of one row, and its entry in _currently_processing
        self._steps = 0
        self._pads = _leaves_padding_out(model)
        self._generation_batch = Decoding.empty(self.model, self.sampler)
        decoding = self._generation_batch
        decoding.lookup, decoding.draft, decoding.ends = lookup, draft, ends
        decoding.hold = (lambda: hold() or self.unread) if hold else None
        self._begun: list[Decoding.Response] = []  # first tokens that the pass gave
        if draft:
            draft.keep([])

    @property
    def unread(self) -> bool:
        """Whether there are prompts to read: all but those of which a step takes the last token."""
        in_pass = zip(self._prompt_batch.uids, self._currently_processing, strict=True)
        more = any(uid in self.in_one_pass or _tokens(entry[0]) > 1 for uid, entry in in_pass)
        return more or bool(self._paused or self._unprocessed_sequences)

    def read(self, size: int, beside: int | None = None) -> tuple[list[Any], list[Any]]:
        """Read about so many tokens of the prompts whose turn it is, in one pass.

        What of that each row has had, and first tokens of those that are read to the end beside other clients.
        beside: tokens up to which the prompts of several clients are read side by side.
        """
        with mx.stream(self._stream):
            unread = self._unread()
            chosen = self.turns.chosen(unread, size, beside)
            if not chosen:
                return [], []
            self._take_in(chosen)
            begun = self._start([at for at, uid in enumerate(self._prompt_batch.uids) if self._fits(at, chosen[uid])])
            responses = begun + self._start(self._at_their_last()) + self._read_on(chosen)
            left = {each.row: each.tokens for each in self._unread()}
            self.turns.charge({each.row: each.tokens - left.get(each.row, 0) for each in unread if each.row in chosen})
            first, self._begun = self._begun, []
            return responses, first

    def decode(self) -> tuple[list[Any], list[Any]]:
        """A step of all rows that answer, and of those that have one token of their prompts left, which begin.

        Prompts that end so, and tokens.
        """
        with mx.stream(self._stream):
            begun = self._start(self._at_their_last(), with_others=True)
            self._steps += 1
            if self._steps % _TIDY_AFTER == 0:
                mx.clear_cache()
            generated = self._generation_batch.next()
            self.turns.answered([each.uid for each in generated])
            return begun, generated

    def _unread(self) -> list[WaitingPrompt]:
        """All prompts that are not read to the end; `decode` has begun those that had one token left in the pass."""
        begun = zip(self._prompt_batch.uids, self._currently_processing, strict=True)
        paused = ((uid, entry) for uid, (_, entry) in self._paused.items())
        left = [WaitingPrompt(each[0], _tokens(each[1])) for each in self._unprocessed_sequences]
        return left + [WaitingPrompt(uid, _tokens(entry[0])) for uid, entry in chain(begun, paused)]

    def _take_in(self, chosen: dict[int, int]) -> None:
        """Leave the chosen rows in the pass, and no others."""
        for uid in [uid for uid in self._prompt_batch.uids if uid not in chosen]:
            at = self._prompt_batch.uids.index(uid)
            self._paused[uid] = self._prompt_batch.split([at]), self._currently_processing.pop(at)
        for uid in [uid for uid in self._paused if uid in chosen]:
            row, entry = self._paused.pop(uid)
            self._prompt_batch.extend(row)
            self._currently_processing.append(entry)
        new = [each for each in self._unprocessed_sequences if each[0] in chosen]
        if new:
            others = [each for each in self._unprocessed_sequences if each[0] not in chosen]
            self._unprocessed_sequences = deque([*new, *others])
            self._prompt_batch.extend(self._make_batch(len(new)))

    def _at_their_last(self) -> list[int]:
        """Rows of the pass that have one token left."""
        return [at for at, (segments, *_) in enumerate(self._currently_processing) if _tokens(segments) == 1]

    def _start(self, rows: list[int], *, with_others: bool = False) -> list[Any]:
        """Begin the answers of these rows of the pass. with_others: their first tokens come with a step of all."""
        if not rows:
            return []
        left = [[*chain(*self._currently_processing[at][0])] for at in rows]
        totals = [self._currently_processing[at][2] for at in rows]
        self._currently_processing = [row for at, row in enumerate(self._currently_processing) if at not in set(rows)]
        begun = self._prompt_batch.split(rows)
        uids = list(begun.uids)
        one_pass = self.in_one_pass.issuperset(uids)
        self.in_one_pass.difference_update(uids)
        begun = _in_one_pass(begun, left) if max(map(len, left)) > 1 else begun.generate(left)
        if one_pass and not with_others:
            begun.model = self.model
            if self.turns.shared and (self.unread or len(self._generation_batch)):
                self._begun += [Decoding.Response(**vars(each)) for each in begun.next()]
            elif self.unread:
                mx.eval(begun._next_tokens)  # before the next pass, so that somebody can come in between
        if begun.uids:
            self._generation_batch.extend(begun)
        done = zip(uids, totals, strict=True)
        return [PromptProcessingBatch.Response(uid, (total, total), True, True) for uid, total in done]

    def _read_on(self, chosen: dict[int, int]) -> list[Any]:
        pieces, responses = [], []
        if not self._pads:  # nothing may be put after the end of a shorter piece
            ends = zip(self._prompt_batch.uids, self._currently_processing, strict=True)
            width = min((min(chosen[uid], len(entry[0][0])) for uid, entry in ends), default=0)
            chosen = dict.fromkeys(chosen, width)
        for uid, entry in zip(self._prompt_batch.uids, self._currently_processing, strict=True):
            segments = entry[0]
            piece = segments[0][: chosen[uid]]
            segments[0] = segments[0][len(piece) :]
            if ended := not segments[0]:
                segments.pop(0)
            entry[1] += len(piece)
            pieces.append(piece)
            responses.append(PromptProcessingBatch.Response(uid, (entry[1], entry[2]), ended, False))
        self._prompt_batch.prompt(pieces)
        return responses

    def _fits(self, at: int, tokens: int) -> bool:
        return self._prompt_batch.uids[at] in self.in_one_pass and _tokens(self._currently_processing[at][0]) <= tokens

    def remove(self, uids: list[int], return_prompt_caches: bool = False) -> Any:
        self.in_one_pass.difference_update(uids)
        caches = super().remove(uids, return_prompt_caches)
        for uid in uids:
            self._paused.pop(uid, None)
        return caches

    def extract_cache(self, uids: list[int]) -> Any:
        paused = {uid: self._paused[uid][0] for uid in uids if uid in self._paused}
        return super().extract_cache(uids) | {uid: (row.extract_cache(0), row.tokens[0]) for uid, row in paused.items()}

    @property
    def prompt_cache_nbytes(self) -> int:
        paused: int = sum(cache.nbytes for row, _ in self._paused.values() for cache in row.prompt_cache)
        known: int = super().prompt_cache_nbytes
        return known + paused


def _leaves_padding_out(model: Any) -> bool:
    """Whether rows of different lengths can be read side by side.

    A layer that keeps a state would take in what a shorter row is filled up with, where its code does not count.
    """
    layers = getattr(model, "layers", None)
    if not layers or not any(isinstance(each, ArraysCache) for each in make_prompt_cache(model)):
        return True
    module = type(layers[0]).__module__.rpartition(".")[2]
    found = arguments.of_module(module)
    return found is None or ("advance" in found.words and module not in _MISCOUNTS)


def _tokens(segments: list[list[int]]) -> int:
    return sum(map(len, segments))


def _in_one_pass(rows: Any, left: list[list[int]]) -> Any:
    """A batch that generates. left: what is not processed of each row's prompt."""
    model, lengths = rows.model, [len(tokens) for tokens in left]
    padded = mx.array([tokens + [0] * (max(lengths) - len(tokens)) for tokens in left])

    def last_of_each(_: mx.array, cache: list[Any]) -> mx.array:
        for layer in cache:
            layer.prepare(lengths=lengths, ends_only=True)
        logits: mx.array = model(padded, cache=cache)
        for layer in cache:
            layer.finalize()
        return logits

    for known, tokens in zip(rows.tokens, left, strict=True):
        known += tokens[:-1]
    rows.model = last_of_each  # for the first step; the batch that these rows join has the model
    return rows.generate([tokens[-1:] for tokens in left])
