"""mlx-lm's decoders as encoders: the hidden state of each token after the last norm, and no head.

Texts are filled up on the right. Where a token sees only what stands before it, the filling changes nothing; Gemma's
embedding models look in both directions and get masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from squish.errors import UnsupportedModel

_BOTH_WAYS = "use_bidirectional_attention"


def headless(model_class: Any) -> Any:
    """An architecture of mlx-lm that loads the weights of an embedding model, which may lack its head and prefix."""
    own = getattr(model_class, "sanitize", None)

    def sanitize(self: Any, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        bare = not any(key.startswith("model.") for key in weights)
        named = {f"model.{key}" if bare else key: array for key, array in weights.items()}
        kept = {key: array for key, array in named.items() if "lm_head." not in key}
        return kept if own is None else dict(own(self, kept))

    return type(model_class.__name__, (model_class,), {"sanitize": sanitize})


class HeadlessDecoder(Module):
    """tokens: (texts, length) ids; mask: (texts, length), true where a token is a text's own.

    Gives (texts, length, hidden size). config: config.json as it is stored.
    """

    def __init__(self, whole: Any, config: Mapping[str, Any], name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inner: Any = getattr(whole, "model", None)
        if not hasattr(self.inner, "norm"):
            kind = config.get("model_type")
            raise UnsupportedModel(f"Squish computes no embeddings with the architecture {kind!r} of {name}.")
        self._both_ways = bool(config.get(_BOTH_WAYS))

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        if self._both_ways:
            return self._gemma(tokens, mask)
        hidden: mx.array = self.inner(tokens)
        return hidden

    def _gemma(self, tokens: mx.array, mask: mx.array) -> mx.array:
        """Gemma 3 in both directions. A layer with a window sees half of it on each side."""
        model = self.inner
        hidden = model.embed_tokens(tokens)
        hidden *= mx.array(model.args.hidden_size**0.5, mx.bfloat16).astype(hidden.dtype)
        places = mx.arange(tokens.shape[1])
        near = mx.abs(places[:, None] - places[None]) <= model.window_size // 2
        everything = mask[:, None, None, :]
        windowed = mx.logical_and(everything, near[None, None])
        for index, layer in enumerate(model.layers):
            sees_all = (index + 1) % model.sliding_window_pattern == 0
            hidden = layer(hidden, everything if sees_all else windowed)
        normed: mx.array = model.norm(hidden)
        return normed
