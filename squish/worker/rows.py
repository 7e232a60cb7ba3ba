"""Rows: what a request becomes when it is worked on. Each brings its own sampler, processor and way out.

It knows the model's tokenizer and nothing of the batch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from squish.generation import FinishReason, SamplingParams
from squish.worker.cache.branches import branch_points
from squish.worker.cache.prefix import BLOCK, PrefixCache
from squish.worker.output.row_output import Reading, RowOutput
from squish.worker.prompt.turns import Owner
from squish.worker.sampling.processors import RowProcessor, edits_of
from squish.worker.sampling.samplers import Sampler, Samplers, greedy
from squish.worker.structured.grammar import Grammar, GrammarState


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """How the answers to one prompt are read, and what they must match. The default is plain text.

    continues: the answer goes on where the prompt breaks off, so that a space in front belongs to it.
    shared: tokens at the beginning that other prompts are likely to share, such as system prompt and tools.
    """

    reading: Reading | None = None
    grammar: Grammar | None = None
    continues: bool = False
    shared: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose prompts are tokenized. tokens: one list per prompt, each at least one token; plans: one each.

    adapter: the directory of one, None for the model as it is. owner: whose it is, for taking turns.
    """

    request: int
    tokens: list[list[int]]
    sampling: SamplingParams
    arrived: float
    plans: tuple[OutputPlan, ...] = ()
    adapter: str | None = None
    owner: Owner = field(default_factory=Owner)


@dataclass(slots=True)
class BatchRow:
    """A row that the batch works on. branches: lengths at which its cache is worth keeping meanwhile.

    limit: which of its limits max_tokens is. followers: rows of the same prompt that start when it is processed.
    processed: tokens that were read of it since it entered the batch; answering: whether it has had one since.
    """

    request: int
    index: int
    prompt: list[int]
    max_tokens: int
    sampling: SamplingParams
    output: RowOutput
    limit: FinishReason = "length"
    sampler: Sampler = greedy
    grammar: Grammar | None = None
    shared: int = 0
    branches: frozenset[int] = frozenset()
    processor: RowProcessor | None = None
    attempts: int = 1
    adapter: str | None = None
    owner: Owner = field(default_factory=Owner)
    followers: list[BatchRow] = field(default_factory=list)
    processed: int = 0
    answering: bool = False

    @property
    def tokens(self) -> list[int]:
        """All that the model is to have read: the prompt and what was generated already."""
        return self.prompt + self.output.tokens

    @property
    def error(self) -> Exception | None:
        return self.processor.error if self.processor else None

    @property
    def complete(self) -> bool:
        """Whether its format is filled, so that nothing can follow."""
        grammar = self.processor.grammar if self.processor else None
        return grammar is not None and grammar.finished

    def why(self, finish: Literal["stop", "length"] | None) -> FinishReason | None:
        """Why it ends, where the batch says that it does: that knows of one limit."""
        return self.limit if finish == "length" else finish

    def segments(self, cached: int, prefix: PrefixCache, ends: Collection[int]) -> list[list[int]]:
        """What is left to process, cut where a cache that cannot be trimmed later has to be snapshotted now.

        That is at the end of what other conversations share, after some messages of a history that is new as a whole,
        and at the end of what this one's next turn repeats. ends: tokens with which a message ends.
        """
        tokens, last = self.tokens, len(self.prompt) - 1
        if prefix.trimmable:
            return [tokens[cached:]]
        grain = 1 if prefix.exact else BLOCK
        turns = branch_points(self.prompt, max(cached, self.shared), ends)
        self.branches = frozenset(turn // grain * grain for turn in turns)
        places = [min(place, len(tokens) - 1) // grain * grain for place in (self.shared, *turns, last)]
        cuts = sorted({cached, len(tokens), *(place for place in places if place > cached)})
        return [tokens[begin:end] for begin, end in pairwise(cuts)]


class RowMaker:
    """Makes the rows of requests. tokenizer: mlx_lm's TokenizerWrapper; context_length in tokens."""

    def __init__(self, tokenizer: Any, context_length: int, use_numpy: bool) -> None:
        self.eos = frozenset(tokenizer.eos_token_ids)
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._use_numpy = use_numpy
        self._samplers = Samplers(use_numpy)

    def first_choices(self, item: Prepared) -> list[BatchRow]:
        """One row for each prompt; the other choices follow it."""
        rows = []
        for prompt in range(len(item.tokens)):
            first, *others = (self._row(item, prompt, choice) for choice in range(item.sampling.n))
            first.followers = others
            rows.append(first)
        return rows

    def prepare(self, row: BatchRow) -> None:
        """Give a row that is about to enter the batch a sampler and a processor that stand where the row stands."""
        row.sampler = self._samplers.of_row(row.sampling, row.index, len(row.output.tokens))
        edits = edits_of(row.sampling, row.prompt)
        grammar = GrammarState(row.grammar, self.eos) if row.grammar else None
        if edits or grammar:
            row.processor = RowProcessor(edits, grammar, self.eos, self._use_numpy, row.output.tokens)

    def _row(self, item: Prepared, prompt: int, choice: int) -> BatchRow:
        index = prompt * item.sampling.n + choice
        plan = item.plans[prompt] if item.plans else OutputPlan()
        tokens = item.tokens[prompt]
        room = item.sampling.context_in(self._context_length) - len(tokens)
        return BatchRow(
            request=item.request,
            index=index,
            prompt=tokens,
            max_tokens=min(item.sampling.max_tokens, room),
            limit="context" if room < item.sampling.max_tokens else "length",
            sampling=item.sampling,
            output=RowOutput(
                index,
                self._detokenizer(tokens[-1] if plan.continues else None),
                self.eos,
                item.sampling.stop,
                len(tokens),
                item.arrived,
                plan.reading,
                item.sampling.logprobs,
            ),
            grammar=plan.grammar,
            shared=plan.shared,
            adapter=item.adapter,
            owner=item.owner,
        )

    def _detokenizer(self, before: int | None) -> Any:
        """A fresh one. At the beginning of a text it drops a space, so one that goes on is given the token before."""
        detokenizer = self._tokenizer.detokenizer
        if before is not None and before not in self.eos:
            detokenizer.add_token(before)
            _ = detokenizer.last_segment  # reading it takes it out
        return detokenizer
