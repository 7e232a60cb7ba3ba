"""From an adapter's directory to the low-rank change of each layer that it names, checked against the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear

from squish.errors import CorruptModel, UnsupportedModel
from squish.format import adapters, safetensors
from squish.format.adapters import AdapterConfig
from squish.format.model_directory import read_object
from squish.text import clean
from squish.worker.cpu.layers import PackedEmbedding, PackedLinear

_PEFT_NAME = re.compile(
    r"base_model\.model\.(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
)
_MLX_NAME = re.compile(r"(?P<module>.+)\.(?P<part>lora_a|lora_b|m)")
_PARTS = {"lora_A": "a", "lora_B": "b", "lora_magnitude_vector": "m", "lora_a": "a", "lora_b": "b", "m": "m"}
_MOST = 100_000  # tensors


@dataclass(frozen=True, slots=True)
class Change:
    """W becomes W + b · a; a: (rank, inputs), b: (outputs, rank) with its scale, float32.

    magnitude: (outputs,) of DoRA, the length that each row of the sum is given; None for LoRA.
    """

    a: mx.array
    b: mx.array
    magnitude: mx.array | None = None


def read_config(directory: Path, name: str) -> AdapterConfig:
    """Raises CorruptModel, UnsupportedModel."""
    try:
        content = read_object(directory / adapters.CONFIG, name)
    except FileNotFoundError as error:
        raise CorruptModel(f"{name} has no {adapters.CONFIG}.", param=adapters.CONFIG) from error
    return adapters.read(content, [path.name for path in directory.iterdir()], name)


def read(directory: Path, model: Any, name: str) -> dict[str, Change]:
    """The change of each module of a model, by the module's name.

    Raises UnsupportedModel for a layer that the model does not have or that cannot be changed, CorruptModel for weights
    whose shapes do not fit each other, the config or the model.
    """
    config = read_config(directory, name)
    path = directory / config.weights
    safetensors.read(path, f"{config.weights} of {name}")
    parts = _parts(cast(dict[str, mx.array], mx.load(str(path))), config, name)
    modules = {key: module for key, module in model.named_modules() if dimensions(module) is not None}
    changes = {}
    for given, tensors in parts.items():
        module = _found(given, modules, name)
        changes[module] = _change(given, tensors, config, modules[module], name)
    if not changes:
        raise CorruptModel(f"{name} changes no layer.", param=config.weights)
    return changes


def dimensions(module: Any) -> tuple[int, int] | None:
    """Outputs and inputs of a linear layer, packed or not; None for anything else."""
    kind = type(module)
    if isinstance(module, PackedLinear) and not isinstance(module, PackedEmbedding):
        return int(module.matrix.rows), int(module.matrix.columns)
    if issubclass(kind, Linear):
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    if issubclass(kind, QuantizedLinear):
        return int(module.weight.shape[0]), int(module.weight.shape[1] * 32 // module.bits)
    return None


def _parts(tensors: Mapping[str, mx.array], config: AdapterConfig, name: str) -> dict[str, dict[str, mx.array]]:
    """The tensors of each module: a, b and m. Raises UnsupportedModel, CorruptModel."""
    pattern = _PEFT_NAME if config.layout == "peft" else _MLX_NAME
    parts: dict[str, dict[str, mx.array]] = {}
    if len(tensors) > _MOST:
        raise CorruptModel(f"{name} has {len(tensors):,} tensors.", param=config.weights)
    for key, tensor in tensors.items():
        found = pattern.fullmatch(key)
        if found is None:
            raise UnsupportedModel(
                f"{config.weights} of {name} has {clean(key)[:120]!r}, which is not a part of a low-rank change.",
                param=config.weights,
            )
        parts.setdefault(found["module"], {})[_PARTS[found["part"]]] = tensor
    return parts


def _found(given: str, modules: Mapping[str, Any], name: str) -> str:
    """The model's own name of a module. Models for text and images keep their text model one level deeper."""
    for prefix in ("", "language_model.", "model."):
        if prefix + given in modules:
            return prefix + given
    short = given.removeprefix("model.")
    if short in modules:
        return short
    raise UnsupportedModel(
        f"{name} changes {clean(given)[:120]!r}, which is not a linear layer of this model.",
        hint="Name the model that it was made for with --base.",
        param="--base",
    )


def _change(given: str, tensors: dict[str, mx.array], config: AdapterConfig, module: Any, name: str) -> Change:
    rank, size = config.rank_of(given), dimensions(module)
    assert size is not None
    outputs, inputs = size
    wanted: dict[str, tuple[int, ...]] = {"a": (rank, inputs), "b": (outputs, rank)}
    if config.layout == "mlx":
        wanted = {part: shape[::-1] for part, shape in wanted.items()}
    if config.dora:
        wanted["m"] = (outputs,)
    for part, shape in wanted.items():
        found = tensors.get(part)
        if found is None:
            raise CorruptModel(f"{config.weights} of {name} lacks a part ({part}) of {clean(given)[:120]!r}.")
        if found.shape != shape and not (part == "m" and found.size == outputs):
            raise CorruptModel(
                f"{name} does not fit: its {part} of {clean(given)[:120]!r} is {found.shape}, and {shape} is needed.",
                hint="Name the model that it was made for with --base.",
                param="--base",
            )
    if set(tensors) - set(wanted):
        raise CorruptModel(f"{name} has a magnitude for {clean(given)[:120]!r}, but is not said to be DoRA.")
    arrays = {part: tensors[part].astype(mx.float32) for part in wanted}
    if not all(bool(mx.isfinite(array).all()) for array in arrays.values()):
        raise CorruptModel(f"{config.weights} of {name} has numbers that are not finite.", param=config.weights)
    a, b = (arrays[part] if config.layout == "peft" else arrays[part].T for part in ("a", "b"))
    return Change(a, b * config.scale_of(given), arrays["m"].reshape(-1) if config.dora else None)
