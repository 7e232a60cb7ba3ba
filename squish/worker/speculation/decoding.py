"""Owns decoding with guesses: a batch that generates, whose steps may give a row more than one token.

A step checks the guesses of all rows in one pass; a row without one takes part with its one token. Without any guess
the step is that of steps.py, which computes the next token while the last one is handed out. To guess, the next token
has to be awaited; so that is done only when what is known already says that a guess is likely.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from squish.worker.sampling.samplers import greedy
from squish.worker.speculation import caches
from squish.worker.speculation.budget import Budget
from squish.worker.speculation.draft_model import DraftModel
from squish.worker.speculation.lookup import Lookup
from squish.worker.speculation.steps import HeldSteps
from squish.worker.speculation.verify import drawn

FEW = 4  # rows; beside more, positions that are checked in vain cost the others too much
_TOGETHER = 16  # positions of a pass, where every row takes as many as the longest


@dataclass(slots=True)
class _Row:
    """What is known of a row to guess from. Either way to guess has a budget of its own; used: the latest one's."""

    text: Lookup = field(default_factory=Lookup)
    budget: Budget = field(default_factory=Budget)
    draft_budget: Budget = field(default_factory=Budget)
    used: Budget | None = None

    def wrote(self, tokens: list[int]) -> None:
        """The answer has become longer."""
        self.budget.wrote(len(tokens))
        self.draft_budget.wrote(len(tokens))
        self.text.add(tokens)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A row's new tokens, the log-probabilities they were drawn from, and how many of its guess they are.

    The last one has not gone through the model yet.
    """

    tokens: list[int]
    logprobs: list[mx.array]

    @property
    def right(self) -> int:
        return len(self.tokens) - 1


class Decoding(HeldSteps):
    """lookup: whether to guess from a row's own text. draft: what guesses where that says nothing.

    ends: tokens that end an answer, and are never guessed.
    """

    @dataclass
    class Response(HeldSteps.Response):  # type: ignore[misc,name-defined]
        """more: the same step gave the row further tokens. drafted, accepted: tokens guessed in it; right ones."""

        more: bool = False
        drafted: int = 0
        accepted: int = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lookup = False
        self.draft: DraftModel | None = None
        self.ends: frozenset[int] = frozenset()
        self._known: dict[int, _Row] = {}
        self._awaited = False  # whether the next tokens are computed already
        self._rewinds: bool | None = None

    def extend(self, batch: Any) -> None:
        super().extend(batch)
        self._awaited = False
        self._rewinds = None

    def filter(self, keep: list[int]) -> None:
        super().filter(keep)
        self._known = {uid: row for uid, row in self._known.items() if uid in self.uids}
        if self.draft:
            self.draft.keep(self.uids)

    def next(self) -> list[Any]:
        guesses = self._guesses()
        if any(guesses):
            return self._check(guesses)
        self._awaited = False
        responses: list[Any] = super().next()
        return responses

    # ---- guessing

    def _guesses(self) -> list[list[int]]:
        """For each row what may follow its next token; [] where nobody guesses."""
        if not (self.lookup or self.draft) or not 0 < len(self.uids) <= FEW or not self._can_rewind():
            return []
        rows = [self._row(at) for at in range(len(self.uids))]
        drafting = self.draft is not None and any(row.draft_budget.length for row in rows)
        looking = self.lookup and any(row.text.continuation(row.budget.length) for row in rows)
        if not (self._awaited or drafting or looking):
            return []
        self._awaited = True
        following: list[int] = self._next_tokens.tolist()
        return [self._guess(at, row, token) for at, (row, token) in enumerate(zip(rows, following, strict=True))]

    def _can_rewind(self) -> bool:
        """Whether the caches can, of which a batch has one kind at a time: looked at when rows have come."""
        if self._rewinds is None:
            self._rewinds = caches.can_rewind(self.prompt_cache)
        return self._rewinds

    def _row(self, at: int) -> _Row:
        """What is known of a row, with all tokens that it has by now."""
        row, tokens = self._known.get(self.uids[at]), self.tokens[at]
        if row is None:
            row = self._known[self.uids[at]] = _Row()
            row.text.add(tokens)
        elif new := tokens[len(row.text) :]:
            row.wrote(new)
        return row

    def _guess(self, at: int, row: _Row, following: int) -> list[int]:
        row.wrote([following])
        room = self.max_tokens[at] - self._num_tokens[at] - 1
        if not caches.by_row(self.prompt_cache):
            room = min(room, _TOGETHER // len(self.uids) - 1)
        if following in self.ends or room < 1:
            return []
        row.used = row.budget
        guess = row.text.continuation(min(row.budget.length, room)) if self.lookup else []
        if self.draft and not guess:
            row.used = row.draft_budget
            tokens = [*self.tokens[at], following]
            guess = self.draft.continuation(self.uids[at], tokens, min(row.draft_budget.length, room))
        return guess[: next((n for n, token in enumerate(guess) if token in self.ends), len(guess))]

    # ---- checking

    def _check(self, guesses: list[list[int]]) -> list[Any]:
        following: list[int] = self._next_tokens.tolist()
        given = [[token, *guess] for token, guess in zip(following, guesses, strict=True)]
        logits = caches.forward(self.model, self.prompt_cache, given)
        checked = self._draw(given, logits)
        kept = [len(row.tokens) for row in checked]
        caches.rewind(self.prompt_cache, [len(row) for row in given], kept)
        before, self._next_logprobs = self._next_logprobs, [row.logprobs[-1] for row in checked]
        self._next_tokens = mx.array([row.tokens[-1] for row in checked], dtype=mx.uint32)
        responses, going_on = [], []
        for at, (row, guess) in enumerate(zip(checked, guesses, strict=True)):
            if guess and (used := self._known[self.uids[at]].used):
                used.judged(len(guess), row.right)
            tokens = [following[at], *row.tokens[:-1]]
            self.tokens[at].extend(tokens)
            given_out = self._responses(at, tokens, [before[at], *row.logprobs[:-1]])
            given_out[0].drafted = len(guess)
            for response in given_out[1:]:
                response.accepted = 1
            if given_out[-1].finish_reason is None:
                going_on.append(at)
            responses += given_out
        if len(going_on) < len(self.uids):
            self.filter(going_on)
        return responses

    def _draw(self, given: list[list[int]], logits: list[mx.array]) -> list[_Checked]:
        """The new tokens of each row. Rows with nothing but the likeliest tokens are computed together."""
        together: dict[int, tuple[mx.array, mx.array]] = {}
        for at, row in enumerate(logits):
            if not self.logits_processors[at]:
                logprobs = row - mx.logsumexp(row, axis=-1, keepdims=True)
                likeliest = greedy(logprobs) if self.samplers[at] is greedy else mx.array([])
                together[at] = logprobs, likeliest
        mx.eval([*together.values()], [row for at, row in enumerate(logits) if at not in together])
        result = []
        for at, tokens in enumerate(given):
            if at not in together:
                result.append(self._draw_edited(at, tokens, logits[at]))
                continue
            logprobs, likeliest = together[at]
            known: Any = likeliest.tolist()
            new = drawn(tokens[1:], known.__getitem__ if known else self._drawing(at, logprobs))
            result.append(_Checked(new, [logprobs[n] for n in range(len(new))]))
        return result

    def _drawing(self, at: int, logprobs: mx.array) -> Any:
        sampler = self.samplers[at]
        return lambda n: int(sampler(logprobs[n : n + 1]).item())

    def _draw_edited(self, at: int, tokens: list[int], logits: mx.array) -> _Checked:
        """The same where what may be drawn depends on the tokens before: penalties, biases, grammars."""
        logprobs: list[mx.array] = []

        def draw(n: int) -> int:
            context = self._token_context[at].update_and_fetch(mx.array(tokens[n : n + 1]))
            edited = logits[n : n + 1]
            for processor in self.logits_processors[at]:
                edited = processor(context, edited)
            normed = edited - mx.logsumexp(edited, axis=-1, keepdims=True)
            logprobs.append(normed[0])
            return int(self.samplers[at](normed).item())

        def ended() -> bool:
            return any(processor.ended for processor in self.logits_processors[at])

        new = drawn(tokens[1:], draw, ended)
        mx.eval(logprobs)
        return _Checked(new, logprobs)

    def _responses(self, at: int, tokens: list[int], logprobs: list[mx.array]) -> list[Any]:
        """What is handed out of a row's tokens, which the model has processed; only the last may end it."""
        responses = []
        for n, token in enumerate(tokens):
            self._num_tokens[at] += 1
            reason = "length" if self._num_tokens[at] >= self.max_tokens[at] else None
            if self._matchers[at].advance(token):
                reason = "stop"
            ended = (self.extract_cache(at), self.tokens[at]) if reason else (None, None)
            more = n + 1 < len(tokens)
            responses.append(self.Response(self.uids[at], token, logprobs[n], reason, *ended, more=more))
        return responses
