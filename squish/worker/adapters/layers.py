"""Linear layers that add low-rank changes to what they compute, each row its own; and the adapters that are in memory.

The model's weights are there once. A change is added outside the product with them, so that any format of weights, and
any product, serves: for each adapter of a batch, the rows that have it are taken together. On a CPU the changes are
multiplied by the extension too, so that what a row is given does not depend on its company.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear

from squish.format.model_directory import display_name
from squish.worker import device
from squish.worker.adapters.files import Change, dimensions, read
from squish.worker.adapters.rows import Selection, TaggedModel
from squish.worker.cpu import extension, layers


class Adapters:
    """The adapters of one model. tagged: the model for batches whose last cache is the rows' tags."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.tagged = TaggedModel(model)
        self._loaded: dict[str, bytes] = {}

    def load(self, path: str) -> bool:
        """Read an adapter's directory, unless it is as it was; whether it was read. Raises UnsupportedModel,
        CorruptModel."""
        directory = Path(path)
        if (seen := _identity(directory)) == self._loaded.get(path):
            return False
        changes = read(directory, self._model, display_name(directory))
        modules = dict(self._model.named_modules())
        for module in modules.values():
            if isinstance(module, _Adapted):
                adapted(module, self.tagged.selection).pop(path, None)
        for name, change in changes.items():
            changed = LowRank(change, modules[name])
            adapted(modules[name], self.tagged.selection)[path] = changed
        self._loaded[path] = seen
        return True


class LowRank:
    """A change, ready to be multiplied."""

    def __init__(self, change: Change, module: Any) -> None:
        self._a, self._b = _linear(change.a), _linear(change.b)
        self._stretch: mx.array | None = None
        self._bias: mx.array | None = None
        if change.magnitude is not None:
            summed = weight_of(module) + change.b @ change.a
            self._stretch = change.magnitude / mx.linalg.norm(summed, axis=1)
            size = dimensions(module)
            assert size is not None
            self._bias = plain(module, mx.zeros((1, size[1]))).astype(mx.float32)[0]
            mx.eval(self._stretch, self._bias)

    def applied(self, x: mx.array, y: mx.array) -> mx.array:
        """What the changed layer gives. x: (rows, length, inputs); y: what the layer gives as it is."""
        delta: mx.array = self._b(self._a(x.astype(mx.float32)))
        if self._stretch is None or self._bias is None:
            return y + delta.astype(y.dtype)
        changed = self._stretch * (y.astype(mx.float32) - self._bias + delta) + self._bias
        return changed.astype(y.dtype)


class _Adapted:
    """A linear layer that looks which rows have which change."""

    def __call__(self: Any, x: mx.array) -> mx.array:
        y = plain(self, x)
        rows = self._selection.rows
        return (
            y
            if rows is None
            else _changed(x, y, [row if row in self._changes else None for row in rows], self._changes)
        )


def adapted(module: Any, selection: Selection) -> dict[str, LowRank]:
    """The changes of a layer, which becomes one that has some; all else of it stays as it is."""
    if not isinstance(module, _Adapted):
        base = type(module)
        module.__class__ = type(base.__name__, (_Adapted, base), {"_base": base, "_selection": None})
    if module._selection is not selection:
        object.__setattr__(module, "_selection", selection)
        object.__setattr__(module, "_changes", {})
    changes: dict[str, LowRank] = module._changes
    return changes


def plain(module: Any, x: mx.array) -> mx.array:
    """What a layer computes without any change."""
    kind: Any = type(module)
    if isinstance(module, _Adapted):
        kind = kind._base
    result: mx.array = kind.__call__(module, x)
    return result


def weight_of(module: Any) -> mx.array:
    """(outputs, inputs) float32 of a linear layer, unpacked."""
    if isinstance(module, QuantizedLinear):
        weight = mx.dequantize(
            module["weight"],
            module["scales"],
            module.get("biases"),
            group_size=module.group_size,
            bits=module.bits,
            mode=module.mode,
        )
        return weight.astype(mx.float32)
    found: mx.array = module.weight
    return found.astype(mx.float32)


def _changed(x: mx.array, y: mx.array, keys: list[str | None], changes: dict[str, LowRank]) -> mx.array:
    """y with each row's own change; rows of one adapter are computed together."""
    distinct = list(dict.fromkeys(keys))
    if len(distinct) == 1:
        return y if distinct[0] is None else changes[distinct[0]].applied(x, y)
    parts, order = [], list[int]()
    for key in distinct:
        at = [index for index, each in enumerate(keys) if each == key]
        rows = mx.array(at)
        parts.append(y[rows] if key is None else changes[key].applied(x[rows], y[rows]))
        order += at
    back = sorted(range(len(order)), key=order.__getitem__)
    return mx.concatenate(parts)[mx.array(back)]


def _identity(directory: Path) -> bytes:
    """What changes when another adapter takes the directory's place."""
    try:
        return (directory / "manifest.toml").read_bytes()
    except OSError:
        return b""


def _linear(weight: mx.array) -> Any:
    """A product with a matrix (outputs, inputs), by the extension where a CPU computes."""
    made: Any = Linear(1, 1, bias=False)
    made.weight = mx.contiguous(weight)
    mx.eval(made.weight)
    if device.on_cpu() and extension.module() is not None:
        return layers.pack(made, exact=True)
    return made
