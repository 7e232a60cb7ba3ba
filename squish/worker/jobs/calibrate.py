"""Reads a text with the original model, or random tokens, and hands every matrix over with the inputs that it gets.

The model computes in float32, all windows of the text at once and layer after layer, so each weight is read from disk
once and forgotten when its matrix has been handed over; memory is that of the activations and one matrix. What the
model predicts is not computed. It knows neither how matrices are rounded nor where they are written.
"""

from __future__ import annotations

import email.message
import inspect
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx_lm.models.switch_layers import SwitchLinear

from squish.errors import CorruptModel
from squish.worker.model.load import tokenizer_of
from squish.worker.prompt.encoder import FOREIGN_TOKENIZER

_WINDOW = 512
_WINDOWS = 16
_DRAWN_WINDOWS = 2
_AS_COMMON = 300  # the first tokens of a vocabulary, among them bytes and signs for itself, are taken to be as common

# Takes the name of a matrix, the matrix, of experts with three dimensions, its inputs (…, columns), whether it is
# looked up too; returns it as it is from then on, or None where it stays as it was. Matrices with the same inputs get
# the same array.
Taker = Callable[[str, mx.array, mx.array, bool], mx.array | None]


class _Finished(Exception):
    """The last matrix was handed over."""


def usual_text() -> str:
    """English and code that every Python brings along, some 45,000 characters: its language reference and sources."""
    from pydoc_data.topics import topics  # half a megabyte, which other jobs need not read

    pages = [str(topics[name])[:2500] for name in sorted(topics)[::4]][:18]
    sources = (textwrap.TextWrapper, email.message.Message, inspect.Signature)
    code = [inspect.getsource(each)[:5000] for each in sources]
    turns = [(*pages[6 * number : 6 * number + 6], each) for number, each in enumerate(code)]
    return "\n\n".join(part for turn in turns for part in turn)


def calibrate(model: Any, source: Path, text: str | None, take: Taker) -> None:
    """Hand over every matrix that the model multiplies by. model: with its weights on disk; its classes are replaced.

    text: None for random tokens; a model without a plain embedding then hands over nothing. Raises CorruptModel where
    the text is too short, or the tokenizer is another model's.
    """
    given = None if text is None else windows(source, text, _WINDOW)
    vocabulary = _watch(model, take)
    if given is None and not vocabulary:
        return
    tokens = _drawn(vocabulary) if given is None else given
    if vocabulary and int(tokens.max()) >= vocabulary:
        raise CorruptModel(FOREIGN_TOKENIZER, param="tokenizer.json")
    try:
        model(tokens)
    except _Finished:
        pass


def _drawn(vocabulary: int) -> mx.array:
    """(windows, tokens) of tokens drawn as a language would: the earlier one is in a vocabulary, the more often."""
    chances = -mx.log(mx.arange(vocabulary).astype(mx.float32) + _AS_COMMON)
    return mx.random.categorical(chances, shape=(_DRAWN_WINDOWS, _WINDOW), key=mx.random.key(0))


def windows(source: Path, text: str, length: int, most: int | None = None) -> mx.array:
    """(windows, length) tokens of a text, or one shorter window; at most so many, from all over its first 8,192.

    source: the directory with the tokenizer. Raises CorruptModel where the text is too short.
    """
    ids = tokenizer_of(source, None, None).encode(text)[: _WINDOWS * _WINDOW]
    length = min(length, len(ids))
    if length < 32:
        raise CorruptModel("The text to calibrate with has fewer than 32 tokens.", param="--calibrate")
    found = mx.array(ids[: len(ids) // length * length]).reshape(-1, length)
    return found if most is None else found[:: -(-len(found) // most)]


def _watch(model: Any, take: Taker) -> int:
    """Make the matrices hand themselves over; how many tokens there are, 0 where the model has no plain embedding."""
    changed = become(model, {Linear: _Linear, SwitchLinear: _SwitchLinear, Embedding: _Embedding})
    vocabulary = max((module.weight.shape[0] for module in changed if type(module) is _Embedding), default=0)
    for module in changed:
        module.take = take
        if type(module) is _Linear:
            module.is_last = bool(vocabulary) and module.weight.shape[0] == vocabulary
    return vocabulary


def become(model: Any, kinds: Mapping[type, type]) -> list[Any]:
    """Modules of exactly these classes become ones of others, which find their own names in `place`. Returns them."""
    changed = []
    for name, module in model.named_modules():
        if kind := kinds.get(type(module)):
            module.__class__, module.place = kind, name
            changed.append(module)
    return changed


def _hand_over(module: Any, x: mx.array, looked_up: bool) -> None:
    mx.eval(x)
    if (rounded := module.take(module.place, module.weight, x, looked_up)) is not None:
        module.weight = rounded


def product_of(module: Any, x: mx.array) -> mx.array:
    """What a Linear makes of float32 inputs, in float32."""
    product: mx.array = x @ module.weight.T.astype(mx.float32)
    return product + module.bias.astype(mx.float32) if "bias" in module else product


class _Linear(Linear):
    place: str
    take: Taker
    is_last: bool

    def __call__(self, x: mx.array) -> mx.array:
        if x.dtype != mx.float32:
            x = x.astype(mx.float32)
        if self.is_last:
            _hand_over(self, x, False)
            raise _Finished
        product = product_of(self, x)
        mx.eval(product)
        _hand_over(self, x, False)
        return product


class _SwitchLinear(SwitchLinear):  # type: ignore[misc]
    place: str
    take: Taker

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        x = x.astype(mx.float32)
        made: mx.array = super().__call__(x, indices, sorted_indices=sorted_indices)
        mx.eval(made)
        _hand_over(self, x, False)
        return made


class _Embedding(Embedding):
    place: str
    take: Taker

    def __call__(self, x: mx.array) -> mx.array:
        found: mx.array = self.weight[x].astype(mx.float32)
        return found

    def as_linear(self, x: mx.array) -> mx.array:
        _hand_over(self, x.astype(mx.float32), True)
        raise _Finished
