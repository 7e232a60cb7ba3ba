"""The jobs of a worker process: import, inspect, compress, measure. Inspecting is done here.

A directory is judged by its own files, and what we could not run is refused here, before it is installed.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_lm.utils import _get_classes
from safetensors import SafetensorError, safe_open

from squish.errors import CorruptModel, UnsupportedModel
from squish.protocol import (
    FromWorker,
    Imported,
    ImportGguf,
    InspectModel,
    Job,
    JobProgress,
    JobResult,
    MeasurePerplexity,
    QuantizeShards,
)
from squish.worker.gguf import GgufImport, import_gguf, inspect_gguf
from squish.worker.model_files import display_name

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json")


def run(job: Job, send: Callable[[FromWorker], None]) -> JobResult:
    """Do the job; progress goes to send. Raises UnsupportedModel, CorruptModel and what writing meets."""

    def report(phase: str, fraction: float) -> None:
        send(JobProgress(phase, fraction))

    match job:
        case ImportGguf(source=source, destination=destination):
            return _imported(import_gguf(Path(source), Path(destination), report))
        case InspectModel(path=path) if path.endswith(".gguf"):
            return _imported(inspect_gguf(Path(path)))
        case InspectModel(path=path):
            return inspect(Path(path))
        case QuantizeShards():
            from squish.worker.quantize import quantize_shards

            return quantize_shards(job, report)
        case MeasurePerplexity(path=path, text=text):
            from squish.worker.perplexity import perplexity

            return perplexity(Path(path), text)


def _imported(found: GgufImport) -> Imported:
    return Imported(found.architecture, found.quantization, found.context_length, found.parameters, found.license)


def inspect(path: Path) -> Imported:
    """What the MLX model in this directory is. Raises UnsupportedModel and CorruptModel naming the file."""
    config = _config(path)
    architecture = str(config.get("model_type", ""))
    if not architecture:
        raise UnsupportedModel(f"{display_name(path)}/config.json names no model_type.", param="config.json")
    try:
        _get_classes(config)
    except ValueError as error:
        raise UnsupportedModel(f"The architecture {architecture!r} is not one that mlx-lm runs.") from error
    if not any((path / name).is_file() for name in _TOKENIZERS):
        raise CorruptModel(
            f"{display_name(path)} has no tokenizer.", hint=f"One of {', '.join(_TOKENIZERS)} is needed."
        )
    found = _weights(path, config)
    text_config = config.get("text_config", config)
    return Imported(
        architecture=architecture,
        quantization=_quantization(config, found.packed) or found.dtype,
        context_length=int(text_config.get("max_position_embeddings") or 0) or 4096,
        parameters=found.parameters,
    )


def _config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnsupportedModel(
            f"{display_name(path)} is not an MLX model directory: it has no config.json.", param="config.json"
        ) from None
    except ValueError as error:
        raise CorruptModel(f"{file.name} of {display_name(path)} is not JSON: {error}", param="config.json") from error
    if not isinstance(config, dict):
        raise CorruptModel(f"{file.name} of {display_name(path)} is not a JSON object.", param="config.json")
    if config.get("model_file") is not None or (config.get("auto_map") and not _runs_natively(config)):
        raise UnsupportedModel(
            f"{display_name(path)} needs code of its own to run, and Squish never runs a model's code."
        )
    return config


def _runs_natively(config: dict[str, Any]) -> bool:
    """Whether mlx-lm has this architecture itself, so that the repository's Python files are not needed."""
    try:
        _get_classes(config)
    except ValueError:
        return False
    return True


def _quantization(config: dict[str, Any], packed: Counter[int]) -> str | None:
    """How the weights are packed. Where layers differ, the mean of their bits says more than what most of them have."""
    found = config.get("quantization") or config.get("quantization_config")
    if not isinstance(found, dict) or "bits" not in found:
        return None
    mode, group = found.get("mode", "affine"), found.get("group_size", 64)
    if len(packed) > 1:
        mean = sum(bits * count for bits, count in packed.items()) / packed.total()
        return f"mixed {mean:.1f}-bit (group {group})"
    name = "" if mode == "affine" else f"{mode}, "
    return f"{found['bits']}-bit ({name}group {group})"


def _count(name: str, shapes: dict[str, list[int]], config: dict[str, Any]) -> int:
    """Numbers that a tensor stands for. A packed one has a scale for each group of numbers; scales stand for none."""
    layer, _, kind = name.rpartition(".")
    if kind in ("scales", "biases") and f"{layer}.scales" in shapes:
        return 0
    scales = shapes.get(f"{layer}.scales")
    if kind != "weight" or scales is None:
        return math.prod(shapes[name])
    packed = config.get("quantization") or config.get("quantization_config") or {}
    own = packed.get(layer)
    group: int = (own if isinstance(own, dict) else packed).get("group_size", 64)
    return math.prod(scales) * group


@dataclass(slots=True)
class _Weights:
    """packed: how many numbers there are of each count of bits, among those that are packed."""

    parameters: int = 0
    packed: Counter[int] = field(default_factory=Counter)
    dtypes: Counter[str] = field(default_factory=Counter)

    @property
    def dtype(self) -> str:
        """The name of the commonest."""
        return self.dtypes.most_common(1)[0][0] if self.dtypes else "empty"

    def add(self, name: str, shapes: dict[str, list[int]], config: dict[str, Any]) -> None:
        count = _count(name, shapes, config)
        self.parameters += count
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and f"{layer}.scales" in shapes and count:
            self.packed[round(32 * math.prod(shapes[name]) / count)] += count


def _weights(path: Path, config: dict[str, Any]) -> _Weights:
    """What the headers of the files say; nothing else is read."""
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise UnsupportedModel(
            f"{display_name(path)} has no .safetensors files.", hint="PyTorch checkpoints are not loaded."
        )
    seen = _Weights()
    for file in files:
        try:
            with safe_open(str(file), framework="numpy") as tensors:
                slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
                shapes = {name: each.get_shape() for name, each in slices.items()}
                for name, each in slices.items():
                    seen.dtypes[each.get_dtype().lower()] += math.prod(shapes[name])
        except (SafetensorError, OSError) as error:
            raise CorruptModel(
                f"{file.name} of {display_name(path)} cannot be read: {error}", param=file.name
            ) from error
        for name in shapes:
            seen.add(name, shapes, config)
    return seen
