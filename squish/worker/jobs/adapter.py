"""The jobs about adapters: one is checked against its model, or becomes a part of a model's weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear
from mlx.utils import tree_flatten

from squish.format.config import context_length
from squish.format.model_directory import INDEX, display_name
from squish.ipc.frames import Imported
from squish.worker.adapters import files
from squish.worker.adapters.files import Change
from squish.worker.adapters.layers import weight_of
from squish.worker.model.load import build
from squish.worker.model.model_files import read_config

_SHARD = 4 << 30  # bytes of a file of weights


def inspect_adapter(path: Path, base: Path) -> Imported:
    """What an adapter is. Raises UnsupportedModel, CorruptModel where it does not fit the model."""
    config = read_config(base)
    name = display_name(path)
    changes = files.read(path, build(base, config), name)
    arrays = [
        each for change in changes.values() for each in (change.a, change.b, change.magnitude) if each is not None
    ]
    return Imported(
        architecture=str(config["model_type"]),
        quantization=files.read_config(path, name).label,
        context_length=context_length(config),
        parameters=sum(array.size for array in arrays),
    )


def fuse(path: Path, base: Path, destination: Path) -> None:
    """Write the model with an adapter's changes in its weights, quantized as the model is. destination: empty.

    Raises UnsupportedModel, CorruptModel, OSError.
    """
    model: Any = build(base, read_config(base))
    modules = dict(model.named_modules())
    for name, change in files.read(path, model, display_name(path)).items():
        _merge(modules[name], change)
    for file in base.iterdir():
        left_out = file.name.startswith(".") or file.suffix == ".safetensors" or file.name in (INDEX, "manifest.toml")
        if file.is_file() and not left_out:
            shutil.copyfile(file, destination / file.name)
    _save(dict(tree_flatten(model.parameters())), destination)


def _merge(module: Any, change: Change) -> None:
    """Change a layer's own weights."""
    weight = weight_of(module) + change.b @ change.a
    if change.magnitude is not None:
        weight = weight * (change.magnitude / mx.linalg.norm(weight, axis=1))[:, None]
    if isinstance(module, QuantizedLinear):
        kind = module.scales.dtype if module.mode == "affine" else mx.bfloat16
        packed, scales, *biases = mx.quantize(
            weight.astype(kind), group_size=module.group_size, bits=module.bits, mode=module.mode
        )
        module.weight, module.scales = packed, scales
        if biases:
            module.biases = biases[0]
    else:
        assert isinstance(module, Linear)
        module.weight = weight.astype(module.weight.dtype)
    mx.eval(module.parameters())


def _save(arrays: dict[str, mx.array], destination: Path) -> None:
    shards: list[dict[str, mx.array]] = [{}]
    size = 0
    for name, array in arrays.items():
        if size and size + array.nbytes > _SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = array
        size += array.nbytes
    names = (
        ["model.safetensors"]
        if len(shards) == 1
        else [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    )
    for file, shard in zip(names, shards, strict=True):
        mx.save_safetensors(str(destination / file), shard, {"format": "mlx"})
    if len(shards) > 1:
        where = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        (destination / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")
