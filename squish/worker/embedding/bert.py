"""The encoders BERT, RoBERTa and XLM-RoBERTa: from token ids to one hidden state a token. They have no head.

Layers have the names that their weights have in transformers. It knows neither pooling nor files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.nn.layers.activations import gelu, gelu_approx, relu, silu
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import LayerNorm

_ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": gelu,
    "gelu_new": gelu_approx,
    "gelu_fast": gelu_approx,
    "gelu_pytorch_tanh": gelu_approx,
    "relu": relu,
    "silu": silu,
}
# What checkpoints have besides the encoder: the heads of other tasks, and counted positions.
_HEADS = re.compile(r"^(?:pooler|cls|lm_head|classifier|qa_outputs)\.|position_ids$")
_PREFIX = re.compile(r"^(?:bert|roberta|model)\.(?=embeddings\.|encoder\.|pooler\.)")
_HEAD = {
    f"{theirs}.{part}": f"{ours}.{part}"
    for theirs, ours in (
        ("pooler.dense", "dense"), ("classifier.dense", "dense"), ("classifier", "out"), ("classifier.out_proj", "out")
    )
    for part in ("weight", "bias")
}  # fmt: skip
_OLD_NORM = re.compile(r"LayerNorm\.(gamma|beta)$")


@dataclass(frozen=True, slots=True)
class BertArgs:
    """Of config.json what decides the computation. first_position: the number of a text's first position."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    activation: str
    first_position: int

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> BertArgs:
        """Raises ValueError and KeyError for a config.json that is not of such a model."""
        activation = str(config.get("hidden_act", "gelu"))
        if activation not in _ACTIVATIONS:
            raise ValueError(f"the activation {activation[:60]!r} is not one of {', '.join(_ACTIVATIONS)}.")
        if config["hidden_size"] % config["num_attention_heads"]:
            raise ValueError("hidden_size is not a multiple of num_attention_heads.")
        return cls(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=config["num_attention_heads"],
            intermediate_size=config["intermediate_size"],
            max_position_embeddings=config["max_position_embeddings"],
            type_vocab_size=config.get("type_vocab_size", 2),
            layer_norm_eps=config.get("layer_norm_eps", 1e-12),
            activation=activation,
            first_position=first_position(config),
        )


def first_position(config: Mapping[str, Any]) -> int:
    """RoBERTa counts positions from behind the number of its padding token."""
    return 0 if config["model_type"] == "bert" else int(config.get("pad_token_id", 1)) + 1


def longest(config: Mapping[str, Any]) -> int:
    """Tokens of the longest text that the positions are for."""
    return int(config["max_position_embeddings"]) - first_position(config)


class _Named(Module):
    """A module whose parts have the names of the checkpoint, `self` among them."""

    def __init__(self, parts: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        for name, part in parts.items():
            self[name] = part


class BertAttention(Module):
    def __init__(self, args: BertArgs) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        size = args.hidden_size
        self.heads = args.num_attention_heads
        self.scale = (size // self.heads) ** -0.5
        self.query, self.key, self.value = (Linear(size, size) for _ in range(3))

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        batch, length, size = x.shape
        queries, keys, values = (
            part(x).reshape(batch, length, self.heads, -1).transpose(0, 2, 1, 3)
            for part in (self.query, self.key, self.value)
        )
        attended = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.scale, mask=mask)
        return attended.transpose(0, 2, 1, 3).reshape(batch, length, size)


class BertLayer(Module):
    def __init__(self, args: BertArgs) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        size, inner, eps = args.hidden_size, args.intermediate_size, args.layer_norm_eps
        output = _Named({"dense": Linear(size, size), "LayerNorm": LayerNorm(size, eps)})
        self.attention = _Named({"self": BertAttention(args), "output": output})
        self.intermediate = _Named({"dense": Linear(size, inner)})
        self.output = _Named({"dense": Linear(inner, size), "LayerNorm": LayerNorm(size, eps)})
        self._activation = _ACTIVATIONS[args.activation]

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        attention = self.attention["output"]
        x = attention.LayerNorm(x + attention.dense(self.attention["self"](x, mask)))
        inner = self._activation(self.intermediate.dense(x))
        normed: mx.array = self.output.LayerNorm(x + self.output.dense(inner))
        return normed


class BertEmbeddings(Module):
    def __init__(self, args: BertArgs) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.word_embeddings = Embedding(args.vocab_size, args.hidden_size)
        self.position_embeddings = Embedding(args.max_position_embeddings, args.hidden_size)
        self.token_type_embeddings = Embedding(args.type_vocab_size, args.hidden_size)
        self.LayerNorm = LayerNorm(args.hidden_size, args.layer_norm_eps)
        self._first = args.first_position

    def __call__(self, tokens: mx.array, types: mx.array | None) -> mx.array:
        positions = mx.arange(self._first, self._first + tokens.shape[1])
        types = mx.zeros_like(positions) if types is None else types
        placed = self.position_embeddings(positions) + self.token_type_embeddings(types)
        normed: mx.array = self.LayerNorm(self.word_embeddings(tokens) + placed)
        return normed


class BertModel(Module):
    """tokens: (texts, length) ids, filled up on the right; mask: (texts, length), true where a token is a text's own;
    types: (texts, length), 1 for tokens of the second of two texts, where the model was trained with them.

    Gives (texts, length, hidden_size).
    """

    def __init__(self, args: BertArgs) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.embeddings = BertEmbeddings(args)
        self.encoder = _Named({"layer": [BertLayer(args) for _ in range(args.num_hidden_layers)]})

    def __call__(self, tokens: mx.array, mask: mx.array, types: mx.array | None = None) -> mx.array:
        hidden = self.embeddings(tokens, types)
        seen = mask[:, None, None, :]
        for layer in self.encoder["layer"]:
            hidden = layer(hidden, seen)
        return hidden

    @property
    def layers(self) -> list[BertLayer]:
        found: list[BertLayer] = self.encoder["layer"]
        return found

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """The encoder's weights under the names that its layers have."""
        return {name: array for name, array in _plain(weights).items() if not _HEADS.search(name)}


class CrossEncoder(Module):
    """An encoder with a head of one number: how well the second of two texts answers the first.

    tokens, mask, types: as of BertModel. Gives (pairs, 1).
    """

    def __init__(self, args: BertArgs) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bert = BertModel(args)
        self.dense = Linear(args.hidden_size, args.hidden_size)
        self.out = Linear(args.hidden_size, 1)

    def __call__(self, tokens: mx.array, mask: mx.array, types: mx.array | None = None) -> mx.array:
        first = self.bert(tokens, mask, types)[:, 0]
        scores: mx.array = self.out(mx.tanh(self.dense(first)))
        return scores

    @property
    def layers(self) -> list[BertLayer]:
        return self.bert.layers

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """BERT keeps the head in `pooler` and `classifier`, RoBERTa all of it in `classifier`."""
        named = _plain(weights)
        head = {_HEAD[name]: array for name, array in named.items() if name in _HEAD}
        return head | {f"bert.{name}": array for name, array in self.bert.sanitize(weights).items()}


def _plain(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Without the prefixes that checkpoints put before the names, and with the names of today."""
    return {_OLD_NORM.sub(_new_norm, _PREFIX.sub("", name)): array for name, array in weights.items()}


def _new_norm(found: re.Match[str]) -> str:
    return "LayerNorm." + {"gamma": "weight", "beta": "bias"}[found[1]]
