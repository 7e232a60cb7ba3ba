"""Owns the order in which the batch works: mlx-lm's, with one pass less for a prompt that goes through in one piece.

How it decodes is speculation/decoding.py's, and whose prompt is read next is prompt/turns.py's. How many rows run at
the same time is for the front process to say: mlx-lm's own limit would keep a row waiting that has been given a place.

mlx-lm processes a prompt without its last token, then takes a step of all running rows, and then the last token by
itself: three times the weights are read before the first token is there. Where no number of a row depends on what is
computed beside it, the end of a prompt and its first token are one pass, which goes before the next step of the others.

It reaches into BatchGenerator, whose version pyproject.toml bounds; a test compares its answers with those of mlx-lm's
order.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, PromptProcessingBatch

from squish.worker.cache.prefix import BLOCK
from squish.worker.prompt.turns import PromptTurns, WaitingPrompt, step_of_each
from squish.worker.speculation.decoding import Decoding
from squish.worker.speculation.draft_model import DraftModel

_MOST_ROWS = 1 << 16


class Batch(BatchGenerator):  # type: ignore[misc]
    """mlx-lm's BatchGenerator.

    in_one_pass: rows that may be answered so: their caches are those of cpu/kv.py, and nobody wants them as they are
    before the last token. turns: whose prompts they are. lookup: whether decoding guesses from what was written before.
    draft: a model that guesses.
    """

    _currently_processing: list[Any]
    _unprocessed_sequences: deque[Any]
    prefill_step_size: int

    def __init__(
        self,
        model: Any,
        *,
        ends: frozenset[int],
        lookup: bool = False,
        draft: DraftModel | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, stop_tokens=[[token] for token in ends], completion_batch_size=_MOST_ROWS, **options)
        self.in_one_pass: set[int] = set()
        self.turns = PromptTurns()
        self._generation_batch = Decoding.empty(self.model, self.sampler)
        decoding = self._generation_batch
        decoding.lookup, decoding.draft, decoding.ends = lookup, draft, ends
        if draft:
            draft.keep([])

    def _next(self) -> tuple[list[Any], list[Any]]:
        self._take_in()
        started = self._start() if self.in_one_pass else []
        self.prefill_batch_size = len(self._prompt_batch)  # it takes in no others
        prompts, generated = super()._next()
        return started + prompts, generated

    def _take_in(self) -> None:
        """Begin to read prompts whose turn it is, and share the step out among them."""
        waiting = [WaitingPrompt(each[0], _tokens(each[1])) for each in self._unprocessed_sequences]
        if chosen := self.turns.chosen(waiting, self._reading(), self.prefill_step_size):
            rows = {each[0]: each for each in self._unprocessed_sequences}
            first = [rows.pop(row) for row in chosen]
            self._unprocessed_sequences = deque([*first, *rows.values()])
            self._prompt_batch.extend(self._make_batch(len(chosen)))
        self.prefill_step_size = step_of_each(self.prefill_step_size, self._reading(), BLOCK)

    def _reading(self) -> list[WaitingPrompt]:
        rows = zip(self._prompt_batch.uids, self._currently_processing, strict=True)
        return [WaitingPrompt(uid, _tokens(row[0])) for uid, row in rows]

    def _start(self) -> list[Any]:
        """Begin the answers of rows whose prompts fit into this step."""
        chosen = [at for at in range(len(self._prompt_batch)) if self._fits(at)]
        if not chosen:
            return []
        left = [[*chain(*self._currently_processing[at][0])] for at in chosen]
        totals = [self._currently_processing[at][2] for at in chosen]
        self._currently_processing = [row for at, row in enumerate(self._currently_processing) if at not in set(chosen)]
        begun = _in_one_pass(self._prompt_batch.split(chosen), left)
        self.in_one_pass.difference_update(begun.uids)
        self._generation_batch.extend(begun)
        done = zip(begun.uids, totals, strict=True)
        return [PromptProcessingBatch.Response(uid, (total, total), True, True) for uid, total in done]

    def _fits(self, at: int) -> bool:
        segments = self._currently_processing[at][0]
        return self._prompt_batch.uids[at] in self.in_one_pass and _tokens(segments) <= self.prefill_step_size

    def remove(self, uids: list[int], return_prompt_caches: bool = False) -> Any:
        self.in_one_pass.difference_update(uids)
        return super().remove(uids, return_prompt_caches)


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
