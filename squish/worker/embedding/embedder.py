"""From token ids to vectors: the encoder, the pooling, the layers after it, and length 1 where the model asks for it.

It knows neither requests nor tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.nn.layers.activations import gelu, relu, silu
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear

from squish.format.embedding import DenseStep, Pooling, VectorRecipe

_ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "identity": lambda x: x,
    "tanh": mx.tanh,
    "gelu": gelu,
    "relu": relu,
    "silu": silu,
}


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text's token ids. prompt: how many of the first are of a prompt and do not count in the pooling. second: of a
    pair, where the second text begins."""

    tokens: Sequence[int]
    prompt: int = 0
    second: int | None = None


class Embedder(Module):
    """encoder: takes (texts, length) ids and a mask of the same shape, gives (texts, length, hidden size)."""

    def __init__(self, encoder: Any, recipe: VectorRecipe) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.encoder = encoder
        self.dense = [Linear(each.inputs, each.outputs, each.bias) for each in recipe.dense]
        self._recipe = recipe

    def __call__(self, texts: Sequence[TokenizedText]) -> mx.array:
        """(texts, dimensions) float32. The texts are computed together, so they should be about equally long."""
        tokens, places, ends = _filled(texts)
        hidden = self.encoder(tokens, places < ends).astype(mx.float32)
        counts = mx.logical_and(places < ends, places >= mx.array([text.prompt for text in texts])[:, None])
        parts = [_pooled(hidden, counts, pooling) for pooling in self._recipe.pooling]
        vectors = mx.concatenate(parts, axis=1)
        for layer, dense in zip(self.dense, self._recipe.dense, strict=True):
            vectors = _ACTIVATIONS[dense.activation](layer(vectors))
        return unit(vectors) if self._recipe.normalize else vectors


class Ranker(Module):
    """Scores of pairs of texts, each a vector of one number. encoder: a CrossEncoder. typed: it was trained with the
    types of tokens. raw: its scores are not put between 0 and 1."""

    def __init__(self, encoder: Any, *, typed: bool, raw: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.encoder = encoder
        self._typed, self._raw = typed, raw

    def __call__(self, texts: Sequence[TokenizedText]) -> mx.array:
        """(pairs, 1) float32."""
        tokens, places, ends = _filled(texts)
        seconds = mx.array([len(text.tokens) if text.second is None else text.second for text in texts])[:, None]
        types = (places >= seconds).astype(mx.int32) if self._typed else None
        scores = self.encoder(tokens, places < ends, types).astype(mx.float32)
        return scores if self._raw else mx.sigmoid(scores)


def _filled(texts: Sequence[TokenizedText]) -> tuple[mx.array, mx.array, mx.array]:
    """Ids filled up on the right to one length, the places of all, (1, length), and where each ends, (texts, 1)."""
    length = max(len(text.tokens) for text in texts)
    tokens = mx.array([[*text.tokens, *[0] * (length - len(text.tokens))] for text in texts])
    return tokens, mx.arange(length)[None], mx.array([len(text.tokens) for text in texts])[:, None]


def unit(vectors: mx.array) -> mx.array:
    """The vectors with length 1; one of zeros stays."""
    return vectors / mx.maximum(mx.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _pooled(hidden: mx.array, counts: mx.array, pooling: Pooling) -> mx.array:
    """One vector a text. counts: (texts, length), true for the tokens that count: a run of at least one."""
    match pooling:
        case "mean":
            weights = counts[..., None].astype(mx.float32)
            return (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        case "max":
            return mx.where(counts[..., None], hidden, -mx.inf).max(axis=1)
        case "cls":
            chosen = mx.argmax(counts, axis=1)
        case "lasttoken":
            chosen = hidden.shape[1] - 1 - mx.argmax(counts[:, ::-1], axis=1)
    return mx.take_along_axis(hidden, chosen[:, None, None], axis=1)[:, 0]


def misfit(dense: Sequence[DenseStep], hidden: int) -> DenseStep | None:
    """The first layer that does not take what comes to it. hidden: numbers that come from the pooling."""
    for each in dense:
        if each.inputs != hidden:
            return each
        hidden = each.outputs
    return None
