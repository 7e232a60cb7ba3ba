"""Owns the two ends of a model that is divided by heads, the embedding and the output layer: rank 0 has them alone.

Rank 0 looks tokens up for all, and only it needs to know what comes out. So that every rank holds as much as the
others, rank 0 gets less of the layers (shares.py).
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module


class Unused(Module):
    """In the place of the output layer, whose results only rank 0 needs."""

    def __call__(self, x: mx.array) -> mx.array:
        return x


class SharedLookup(Module):
    """The embedding, as every rank has it: a sum of what rank 0 finds and of nothing from the others.

    inner: all of it on rank 0; elsewhere its first row, which knows the type and the width of what is found.
    """

    def __init__(self, inner: Module, group: Any) -> None:
        module_init: Any = super().__init__
        module_init()
        self.inner = inner
        object.__setattr__(self, "_group", group)

    def __call__(self, tokens: mx.array) -> mx.array:
        layer: Any = self.inner
        found = layer(tokens) if self._group.rank() == 0 else mx.zeros_like(layer(mx.zeros_like(tokens)))
        summed: mx.array = mx.distributed.all_sum(found, group=self._group)
        return summed

    def as_linear(self, x: mx.array) -> mx.array:
        """The output layer of a model that has none of its own."""
        layer: Any = self.inner
        output: mx.array = layer.as_linear(x) if self._group.rank() == 0 else x
        return output


def without_output(model: Any) -> None:
    """Leave out the output layer of a model whose weights are still on disk, where it is a layer of its own."""
    if "lm_head" in model:
        unused: Any = Unused
        model.lm_head = unused()
