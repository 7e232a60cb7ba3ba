"""Owns transformers' layers on the CPU in few operations: attention over a batch's own caches, gates, sums in norms.

A block of mlx-lm's llama is some 30 nodes of MLX's graph; here it is one where its matrices are packed, else ten. A
layer is changed in place: it becomes a subclass of what it was, so that its weights, its name and all else stay, and
where a cache is not one of kv.py it computes as before. Only classes whose code was read are changed (`_BLOCKS`); all
others run as mlx-lm wrote them.

With these layers nothing that a row computes depends on other rows, on padding or on where its prompt was cut.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.core as mx
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.positional_encoding import RoPE
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx_lm.models import rope_utils
from mlx_lm.models.cache import make_prompt_cache

from squish.worker.cpu.functions import Speeds
from squish.worker.cpu.kv import BatchCache, SequenceCache
from squish.worker.model.k_quants import KQuant

_SILU, _GELU_TANH = 0, 1
# Architectures by module of mlx_lm.models: which gate their MLPs have, and what their norms add to weights.
_BLOCKS = {"llama": (_SILU, 0.0), "qwen2": (_SILU, 0.0), "qwen3": (_SILU, 0.0), "gemma3_text": (_GELU_TANH, 1.0)}
_FUSED = "_squish_fused"


def fuse(model: Any, native: Any, kv_bits: int = 32) -> bool:
    """Change all layers of a model, or none where one is not known. Returns whether they were changed.

    kv_bits: of a number in its caches, 32, 16 or 8.
    """
    layers = list(getattr(model, "layers", ()))
    kinds = {_architecture(layer) for layer in layers}
    caches = make_prompt_cache(model)
    if len(kinds) != 1 or kinds <= {None} or len(caches) != len(layers) or not all(map(SequenceCache.can_hold, caches)):
        return False
    plans = [_attention_layer(layer, cache, native, kv_bits) for layer, cache in zip(layers, caches, strict=True)]
    if not all(plans):
        return False
    for layer, plan in zip(layers, plans, strict=True):
        gate, one = _BLOCKS[_architecture(layer) or ""]
        whole = _block_layer(layer, plan, native)
        _become(layer.self_attn, FusedAttention, native, plan)
        _become(layer.mlp, FusedMlp, native, gate)
        _become(layer, FusedSandwich if _sandwich(layer) else FusedBlock, native, one)
        object.__setattr__(layer, "_whole", whole)
    object.__setattr__(layers[-1], "_last", True)
    object.__setattr__(model, _FUSED, kv_bits)
    return True


def kv_bits(model: Any) -> int | None:
    """Of a number in the caches of a model whose layers were changed; None where they were not."""
    found: int | None = getattr(model, _FUSED, None)
    return found


def same_in_any_company(model: Any) -> bool:
    """Whether no number of a row depends on other rows of its batch, or on where its prompt was cut.

    So it is with blocks that are not one node, too, if all products are the extension's: a rank's part of each.
    """
    plain = (Linear, Embedding, QuantizedLinear, QuantizedEmbedding, KQuant)
    return kv_bits(model) is not None and not any(isinstance(module, plain) for module in model.modules())


def caches_by_row(model: Any, caches: list[Any] | None) -> list[Any] | None:
    """What the batch is to hold of a row's caches (None: an empty one): each row apart, where the model can."""
    if kv_bits(model) is None:
        return caches
    return [SequenceCache.of(cache) for cache in caches or make_prompt_cache(model)]


def caches_of_mlx(caches: list[Any]) -> list[Any]:
    """mlx-lm's caches of what a batch has given back."""
    return [cache.to_mlx() if isinstance(cache, SequenceCache) else cache for cache in caches]


class FusedAttention:
    """Attention whose heads' norms, rotation, cache and sums are one node. x: (batch, length, size)."""

    def __call__(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        if not isinstance(cache, BatchCache):
            own: Any = super()
            before: mx.array = own.__call__(x, mask, cache)
            return before
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        attended = cache.run(x.shape[1], partial(self._native.attend_rows, self._plan, q, k, v))
        projected: mx.array = self.o_proj(attended)
        return projected


class FusedMlp:
    """A gated MLP. Its plan is the kind of gate."""

    def __call__(self: Any, x: mx.array) -> mx.array:
        result: mx.array = self.down_proj(self._native.gate(self.gate_proj(x), self.up_proj(x), self._plan))
        return result


class _Whole:
    """A block that is one node where its matrices are packed and its cache is one of kv.py."""

    # Of the model: of a prompt only its keys and values are needed, and the rest is never computed, or that of its end.
    _last = False

    def __call__(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        if self._whole and isinstance(cache, BatchCache) and not cache.in_parts:
            ends = self._last and cache.ends_only
            if ends or x.shape[1] == 1 or not self._last or cache.all_wanted:
                return cache.run(x.shape[1], partial(self._native.block, self._whole, x, ends))
        parts: mx.array = self._in_parts(x, mask, cache)
        return parts


class FusedBlock(_Whole):
    """A block that norms before attention and before the MLP. Its plan is what norms add to weights."""

    def _in_parts(self: Any, x: mx.array, mask: Any, cache: Any) -> mx.array:
        attended = self.self_attn(_normed(self, self.input_layernorm, x), mask, cache)
        second = self.post_attention_layernorm
        normed, h = self._native.norm(attended, second.weight, x, self._plan, second.eps)
        result: mx.array = h + self.mlp(normed)
        return result


class FusedSandwich(_Whole):
    """A block that norms before and after attention and MLP, as Gemma's. Its plan is what norms add to weights."""

    def _in_parts(self: Any, x: mx.array, mask: Any, cache: Any) -> mx.array:
        attended = self.self_attn(_normed(self, self.input_layernorm, x), mask, cache)
        after = _normed(self, self.post_attention_layernorm, attended)
        before = self.pre_feedforward_layernorm
        normed, h = self._native.norm(after, before.weight, x, self._plan, before.eps)
        result: mx.array = h + _normed(self, self.post_feedforward_layernorm, self.mlp(normed))
        return result


def _normed(layer: Any, norm: Any, x: mx.array) -> mx.array:
    normed: mx.array = layer._native.norm(x, norm.weight, None, layer._plan, norm.eps)[0]
    return normed


def _sandwich(layer: Any) -> bool:
    return hasattr(layer, "pre_feedforward_layernorm")


def _architecture(layer: Any) -> str | None:
    package, _, name = type(layer).__module__.rpartition(".")
    known = package == "mlx_lm.models" and name in _BLOCKS and type(layer).__name__ == "TransformerBlock"
    return name if known else None


def _become(module: Any, kind: type, native: Any, plan: Any) -> None:
    base = type(module)
    module.__class__ = type(kind.__name__, (kind, base), {})
    object.__setattr__(module, "_native", native)
    object.__setattr__(module, "_plan", plan)


def _block_layer(layer: Any, attention: Any, native: Any) -> Any:
    """The extension's description of a whole block; None where its matrices are not all packed, and alike."""
    holders = [layer.self_attn] * 4 + [layer.mlp] * 3
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    linear = [getattr(holder, name) for holder, name in zip(holders, names, strict=True)]
    if not all(hasattr(each, "matrix") for each in linear) or len({each.exact for each in linear}) != 1:
        return None
    first, second = layer.input_layernorm, layer.post_attention_layernorm
    norms = [first, None, second, None]
    if _sandwich(layer):
        norms = [first, second, layer.pre_feedforward_layernorm, layer.post_feedforward_layernorm]
    weights = [([], 0.0) if norm is None else (norm.weight.tolist(), norm.eps) for norm in norms]
    gate, one = _BLOCKS[_architecture(layer) or ""]
    return native.block_layer(attention, weights, one, [each.matrix for each in linear], gate, linear[0].exact)


def _attention_layer(block: Any, cache: Any, native: Any, kv_bits: int) -> Any:
    """The extension's description of a block's attention; None where its rotation is not known."""
    attention = block.self_attn
    rotation = _rotation(attention.rope, native)
    if rotation is None:
        return None
    speeds, adjacent, position_scale, stretch = rotation
    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    weights = [[] if norm is None else norm.weight.astype(mx.float32).tolist() for norm in norms]
    dims = getattr(attention, "head_dim", len(weights[0]) or block.hidden_size // attention.n_heads)
    return native.attention_layer(
        attention.n_heads,
        attention.n_kv_heads,
        dims,
        dims,
        attention.scale,
        getattr(cache, "max_size", 0),
        speeds,
        adjacent,
        position_scale,
        stretch,
        *weights,
        norms[0].eps if norms[0] is not None else 0.0,
        _BLOCKS[_architecture(block) or ""][1],
        [],
        kv_bits,
    )


def _rotation(rope: Any, native: Any) -> tuple[list[float], bool, float, float] | None:
    """Speeds, whether pairs are adjacent, what positions are multiplied by, and what rotated numbers are."""
    speeds = Speeds(native)
    kind = type(rope)
    if kind is RoPE:
        return speeds.of(rope.dims, rope.base, None), rope.traditional, rope.scale, 1.0
    if kind in (rope_utils.Llama3RoPE, rope_utils.ProportionalRoPE):
        return speeds.of(rope.dims, None, rope._freqs), rope.traditional, 1.0, 1.0
    if kind is rope_utils.YarnRoPE:
        return speeds.of(rope.dims, None, rope._freqs), rope.traditional, 1.0, rope.mscale
    if kind is rope_utils.SuScaledRoPE:
        return speeds.of(rope.dim, None, rope._freqs), False, 1.0, rope._scale
    if kind.__name__ == "NoPE" and kind.__module__ == "mlx_lm.models.smollm3":
        return [], False, 1.0, 1.0  # a layer that turns nothing
    return None
