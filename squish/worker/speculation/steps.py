"""Owns when a step of the rows that answer begins: as soon as the one before is computed, unless it is to wait.

mlx-lm's GenerationBatch has two steps under way, so that Python's part of one is done while the other is computed.
Nothing that is under way can be interrupted: who comes new would wait for both. Here the next step is prepared while
one is computed, which is all of Python's part, and begins when that has ended and nothing is to go first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.generate import GenerationBatch


class HeldSteps(GenerationBatch):  # type: ignore[misc]
    """hold: whether a step that is prepared is to begin when it is asked for, and not before. None: as mlx-lm does."""

    uids: list[int]
    tokens: list[list[int]]
    _next_tokens: Any
    _next_logprobs: list[mx.array]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.hold: Callable[[], bool] | None = None
        super().__init__(*arguments, **options)

    def _step(self) -> tuple[list[int], list[mx.array]]:
        """The tokens that are computed now, and the log-probabilities they were drawn from."""
        if self.hold is None:
            ours: tuple[list[int], list[mx.array]] = super()._step()
            return ours
        inputs, before = self._next_tokens, self._next_logprobs
        self._current_tokens, self._current_logprobs = inputs, before
        _begin(inputs, before)  # no more than has begun already, where it did not wait
        contexts = self._prepare(inputs)
        mx.eval(inputs, before)
        if not self.hold():
            _begin(self._next_tokens, self._next_logprobs, contexts)
        tokens: list[int] = inputs.tolist()
        for known, token in zip(self.tokens, tokens, strict=True):
            known.append(token)
        return tokens, before

    def _prepare(self, inputs: mx.array) -> list[mx.array]:
        """What follows each row's token, to be computed; the texts that penalties and grammars look at."""
        logits = self.model(inputs[:, None], cache=self.prompt_cache)[:, -1, :]
        contexts: list[mx.array] = []
        if any(self.logits_processors):
            edited = []
            for at, processors in enumerate(self.logits_processors):
                row = logits[at : at + 1]
                if processors:
                    contexts.append(self._token_context[at].update_and_fetch(inputs[at : at + 1]))
                for processor in processors or ():
                    row = processor(contexts[-1], row)
                edited.append(row)
            logits = mx.concatenate(edited, axis=0)
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        samplers = [sampler or self.fallback_sampler for sampler in self.samplers or [None] * len(self.uids)]
        if all(sampler is samplers[0] for sampler in samplers):
            self._next_tokens = samplers[0](logprobs)
        else:
            drawn_alone = [sampler(logprobs[at : at + 1]) for at, sampler in enumerate(samplers)]
            self._next_tokens = mx.concatenate(drawn_alone, axis=0)
        self._next_logprobs = list(logprobs)
        return contexts


def _begin(*arrays: Any) -> None:
    mx.async_eval(*arrays)  # type: ignore[no-untyped-call]
