"""Owns how a model is cut into the parts of the ranks, before its weights are read.

Tensor parallel where possible: each rank has some of the heads and some of the columns of the MLP, and what they
compute is summed after attention and after the MLP. For models of BY_HEADS it is cut here, in shares that need not be
even, and rank 0 alone has the embedding and the output layer; others are cut by mlx-lm's `shard`, evenly. What neither
can is cut into layers (`pipeline`) where mlx-lm can. Layers stay of the classes they were, so that whatever replaces
layers on a CPU replaces these too.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import mlx.core as mx
from mlx.nn.layers import distributed
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear

from squish.errors import UnsupportedModel
from squish.ipc.group import BY_HEADS
from squish.worker.group.ends import SharedLookup
from squish.worker.group.shares import LayerShare, spans
from squish.worker.model import k_quants
from squish.worker.model.k_quants import KQuant

Way = Literal["tensor", "pipeline"]

_SUPER = 256  # columns of a K-quant that have to stay together
_TOGETHER = 32


class AllSum(Module):
    """A layer that holds some of the columns: the sum over all ranks, and then the bias."""

    def __init__(self, inner: Module, group: Any) -> None:
        module_init: Any = super().__init__
        module_init()
        self.bias = inner.pop("bias", None)
        self.inner = inner
        object.__setattr__(self, "_group", group)

    def __call__(self, x: mx.array) -> mx.array:
        layer: Any = self.inner
        summed: mx.array = mx.distributed.all_sum(layer(x), group=self._group)
        return summed if self.bias is None else summed + self.bias


def cut(model: Any, config: dict[str, Any], group: Any, name: str) -> Way:
    """Leave in a model, whose weights are still on disk, what this rank computes. name: of the model, for errors.

    Raises UnsupportedModel.
    """
    size, rank = group.size(), group.rank()
    reason = f"mlx-lm has no way to divide models of type {config.get('model_type')}"
    if _is_plain(model):
        if (problem := _shard_plain(model, size, rank, group)) is None:
            return "tensor"
        reason = problem
    elif hasattr(model, "shard"):
        if (problem := _shard_by_mlx(model, config, size, group)) is None:
            return "tensor"
        reason = problem
    inner: Any = getattr(model, "model", None)
    if hasattr(inner, "pipeline") and len(inner.layers) >= size:
        inner.pipeline(group)
        return "pipeline"
    raise UnsupportedModel(
        f"{name} cannot be divided among {size} ranks: {reason}.",
        hint="Take another number of ranks, or run it on one machine.",
        param="ranks",
    )


# ---- tensor parallel, by us


def _is_plain(model: Any) -> bool:
    package, _, name = type(model).__module__.rpartition(".")
    return package == "mlx_lm.models" and name in BY_HEADS and all(hasattr(layer, "mlp") for layer in model.layers)


def _shard_plain(model: Any, size: int, rank: int, group: Any) -> str | None:
    """Cut every layer; a reason why that is impossible, and then nothing is cut."""
    plans, ends = [], _nbytes(model.model.embed_tokens) + (_nbytes(model.lm_head) if "lm_head" in model else 0)
    for layer in model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        heads = attention.n_kv_heads
        if heads < size:
            return f"it has {heads} key-value head{'s' * (heads > 1)}"
        columns = _columns(attention.o_proj)
        if columns // heads % _unit(attention.o_proj):
            return "its heads are smaller than the groups in which its weights are quantized"
        unit = _piece(mlp.down_proj, size)
        pieces, rest = divmod(_columns(mlp.down_proj), unit)
        if rest or pieces < size:
            return "its layers are too small"
        of_mlp = _nbytes(mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        of_attention = _nbytes(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        shares = spans(heads, pieces, size, of_attention / of_mlp, ends / len(model.layers) / of_mlp)
        plans.append((shares[rank], unit))
    for layer, (share, unit) in zip(model.layers, plans, strict=True):
        _shard_attention(layer, share, group)
        _shard_mlp(layer.mlp, share.pieces[0] * unit, share.pieces[1] * unit, group)
    if rank:
        _keep_rows(model.model.embed_tokens, 0, 1)
    model.model.embed_tokens = SharedLookup(model.model.embed_tokens, group)
    return None


def _shard_attention(layer: Any, share: LayerShare, group: Any) -> None:
    attention = layer.self_attn
    dims = _columns(attention.o_proj) // attention.n_heads
    per_head = attention.n_heads // attention.n_kv_heads
    first, end = share.heads
    _keep_rows(attention.q_proj, first * per_head * dims, end * per_head * dims)
    _keep_rows(attention.k_proj, first * dims, end * dims)
    _keep_rows(attention.v_proj, first * dims, end * dims)
    _keep_columns(attention.o_proj, first * per_head * dims, end * per_head * dims)
    attention.o_proj = AllSum(attention.o_proj, group)
    attention.n_heads, attention.n_kv_heads = (end - first) * per_head, end - first
    attention.head_dim = dims


def _shard_mlp(mlp: Any, first: int, end: int, group: Any) -> None:
    _keep_rows(mlp.gate_proj, first, end)
    _keep_rows(mlp.up_proj, first, end)
    _keep_columns(mlp.down_proj, first, end)
    mlp.down_proj = AllSum(mlp.down_proj, group)


def _keep_rows(layer: Any, first: int, end: int) -> None:
    for key, array in _arrays(layer).items():
        layer[key] = mx.contiguous(array[first:end])


def _keep_columns(layer: Any, first: int, end: int) -> None:
    columns = _columns(layer)
    for key, array in _arrays(layer).items():
        if key != "bias":
            each = array.shape[-1]
            layer[key] = mx.contiguous(array[..., first * each // columns : end * each // columns])


def _arrays(layer: Any) -> dict[str, mx.array]:
    return {key: value for key, value in layer.items() if isinstance(value, mx.array)}


def _nbytes(*layers: Any) -> int:
    return sum(array.nbytes for layer in layers for array in _arrays(layer).values())


def _columns(layer: Any) -> int:
    columns: int = layer.weight.shape[-1]
    return columns if isinstance(layer, Linear) else columns * 32 // int(layer.bits)


def _unit(layer: Any) -> int:
    """Columns that have to stay together."""
    return _SUPER if isinstance(layer, KQuant) else int(getattr(layer, "group_size", 1))


def _piece(layer: Any, size: int) -> int:
    """Columns that are not divided: also of a layer that could be cut anywhere, since products run over so many."""
    unit, columns = _unit(layer), _columns(layer)
    return _TOGETHER if unit < _TOGETHER <= columns // size and columns % _TOGETHER == 0 else unit


# ---- tensor parallel, by mlx-lm


def _shard_by_mlx(model: Any, config: dict[str, Any], size: int, group: Any) -> str | None:
    about = config.get("text_config", config)
    for key, what in (("num_attention_heads", "heads"), ("num_key_value_heads", "key-value heads")):
        if (number := about.get(key)) and number % size:
            return f"it has {number} {what}"
    k_quants.to_mlx(model)
    try:
        model.shard(group)
    except (ValueError, TypeError) as error:
        return f"mlx-lm says: {' '.join(str(error).split())[:200]}"
    for name, module in list(model.named_modules()):
        if (layer := _as_before(module, group)) is not None:
            k_quants.replace(model, name, layer)
    return None


def _as_before(module: Any, group: Any) -> Module | None:
    """A layer of the class that was there before `shard`, with what this rank has of it; None for other modules."""
    kind = type(module)
    quantized = kind in (distributed.QuantizedAllToShardedLinear, distributed.QuantizedShardedToAllLinear)
    if not quantized and kind not in (distributed.AllToShardedLinear, distributed.ShardedToAllLinear):
        return None
    plain = QuantizedLinear if quantized else Linear
    layer: Any = plain.__new__(plain)
    module_init: Any = Module.__init__
    module_init(layer)
    for key, array in _arrays(module).items():
        layer[key] = array
    if quantized:
        layer.group_size, layer.bits, layer.mode = module.group_size, module.bits, module.mode
    sums = kind in (distributed.ShardedToAllLinear, distributed.QuantizedShardedToAllLinear)
    return AllSum(layer, group) if sums else cast(Module, layer)
