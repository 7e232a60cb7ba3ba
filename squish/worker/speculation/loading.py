"""Owns how a draft model comes beside the model that it guesses for: what makes a pair impossible is found first.

Their tokens are compared before any weights are read, and the draft, which is small, is read before the large model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlx_lm.tokenizer_utils import TokenizerWrapper

from squish.format.model_directory import display_name
from squish.worker.cpu.install import prepare_model
from squish.worker.model.hold import hold
from squish.worker.model.load import load, tokenizer_in, vocabulary_in
from squish.worker.speculation.draft_model import DraftModel
from squish.worker.speculation.same_tokens import require_same_tokens
from squish.worker.tokenizer.facts import Shelf


@dataclass(frozen=True, slots=True)
class DraftPair:
    """Two models of the same tokens, of which nothing else is in memory. tokenizer: of the large one."""

    model: Path
    draft: Path
    tokenizer: TokenizerWrapper
    draft_tokenizer: TokenizerWrapper

    def load_draft(self, kv_bits: int | None) -> tuple[DraftModel, int]:
        """The model that guesses, and the bytes of its weights. Raises what `load` raises, and ConfigError."""
        small = load(self.draft, tokenizer=self.draft_tokenizer)
        prepare_model(small.model, kv_bits)
        vocabulary = vocabulary_in(self.model, self.tokenizer)
        return DraftModel(small.model, vocabulary, display_name(self.draft)), small.weights_bytes


def paired(model: Path, draft: Path, shelf: Shelf | None) -> DraftPair:
    """Open the tokenizers of two model directories, and compare them.

    Raises ConfigError naming the first difference, and what reading them raises.
    """
    for each in (model, draft):
        hold(each)
    pair = DraftPair(model, draft, tokenizer_in(model, shelf), tokenizer_in(draft, shelf))
    require_same_tokens(pair.tokenizer, pair.draft_tokenizer, display_name(model), display_name(draft))
    return pair
