"""The jobs of a worker process: import, inspect, compress, measure. Inspecting is done here.

A directory is judged by its own files, and what we could not run is refused here, before it is installed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squish.errors import SquishError
from squish.format import model_directory, packed, safetensors
from squish.format.config import context_length
from squish.format.model_directory import display_name, require_directory
from squish.ipc.frames import (
    FromWorker,
    FuseAdapter,
    Imported,
    ImportGguf,
    InspectAdapter,
    InspectGguf,
    InspectModel,
    InspectStart,
    Job,
    JobProgress,
    JobResult,
    Judged,
    MeasurePerplexity,
    QuantizeShards,
    Verdict,
)
from squish.worker import device
from squish.worker.cpu.build import supported
from squish.worker.gguf.importer import GgufImport, import_gguf, inspect_start, require_importable
from squish.worker.model.load import check
from squish.worker.model.model_files import kind_of
from squish.worker.tokenizer.facts import Shelf

_FEW = 1 / 20

Shapes = Mapping[str, tuple[int, ...]]


def run(job: Job, send: Callable[[FromWorker], None], shelf: Shelf | None = None) -> JobResult:
    """Do the job; progress goes to send. shelf: where what is found out of tokenizers is kept for later workers.

    Raises UnsupportedModel, CorruptModel and what writing meets."""

    def report(phase: str, fraction: float) -> None:
        send(JobProgress(phase, fraction))

    match job:
        case ImportGguf(source=source, destination=destination):
            found = import_gguf(Path(source), Path(destination), report, k_quants=_keeps_k_quants())
            check(Path(destination), shelf)
            return _imported(found)
        case InspectStart(path=path, size=size, present=present, part=part):
            return Judged(inspect_start(Path(path), size, present, part=part, k_quants=_keeps_k_quants()))
        case InspectGguf(path=path):
            return _verdict(Path(path))
        case InspectModel(path=path):
            return inspect(Path(path), shelf)
        case InspectAdapter(path=path, base=base):
            from squish.worker.jobs.adapter import inspect_adapter

            return inspect_adapter(Path(path), Path(base))
        case FuseAdapter(path=path, base=base, destination=destination):
            from squish.worker.jobs.adapter import fuse

            fuse(Path(path), Path(base), Path(destination))
            return inspect(Path(destination), shelf)
        case QuantizeShards():
            from squish.worker.jobs.quantize import quantize_shards

            return quantize_shards(job, report)
        case MeasurePerplexity(path=path, text=text, keep=keep, against=against):
            from squish.worker.jobs.perplexity import perplexity

            kept, other = (None if each is None else Path(each) for each in (keep, against))
            return perplexity(Path(path), text, keep=kept, against=other)


def _keeps_k_quants() -> bool:
    """Whether this machine computes with K-quants as they are."""
    return device.on_cpu() and supported()


def _verdict(path: Path) -> Verdict:
    try:
        require_importable(path, k_quants=_keeps_k_quants())
    except SquishError as error:
        return Verdict(error.message)
    return Verdict()


def _imported(found: GgufImport) -> Imported:
    return Imported(found.architecture, found.quantization, found.context_length, found.parameters, found.license)


def inspect(path: Path, shelf: Shelf | None = None) -> Imported:
    """What the MLX model in this directory is. Raises what loading it would raise, but for want of memory."""
    kind = kind_of(path, model_directory.read_config(path, display_name(path)))
    if kind != "chat":
        from squish.worker.embedding import loading

        config, recipe = loading.check(path, shelf)
        context = loading.longest(config, recipe)
    else:
        config = check(path, shelf)
        context = context_length(config)
    found = _weights(path, config)
    return Imported(
        architecture=str(config["model_type"]),
        quantization=_quantization(config, found) or found.dtype,
        context_length=context,
        parameters=found.parameters,
        kind=kind,
    )


def _quantization(config: dict[str, Any], weights: _Weights) -> str | None:
    """How the weights are packed: `4-bit (group 64)`, or where layers differ, the bits of a weight of the whole model.

    Those count everything, scales and what was not packed too, as in the label of a GGUF file. A few matrices that
    were left as they are, such as routers, make no model mixed.
    """
    found = config.get("quantization") or config.get("quantization_config")
    if not isinstance(found, dict) or "bits" not in found or not weights.packed:
        return None
    mode, group = found.get("mode", "affine"), found.get("group_size", 64)
    if len(weights.packed) > 1 or weights.loose > _FEW * weights.packed.total():
        groups = sorted({each for _, each in weights.packed})
        which = f"group {groups[0]}" if len(groups) == 1 else f"groups of {', '.join(map(str, groups))}"
        return f"{8 * weights.stored / weights.parameters:.1f} bits a weight, mixed ({which})"
    name = "" if mode == "affine" else f"{mode}, "
    return f"{found['bits']}-bit ({name}group {group})"


def _count(name: str, shapes: Shapes, config: dict[str, Any]) -> int:
    """Numbers that a tensor stands for; scales stand for none."""
    layer, _, kind = name.rpartition(".")
    if kind in packed.SCALES and f"{layer}.scales" in shapes:
        return 0
    scales = shapes.get(f"{layer}.scales")
    if kind != "weight" or scales is None:
        return math.prod(shapes[name])
    return packed.numbers(layer, math.prod(shapes[name]), math.prod(scales), config)


@dataclass(slots=True)
class _Weights:
    """packed: how many numbers there are of each count of bits and size of a group, among those that are packed.

    loose: how many are in other matrices; stored: bytes of all tensors; dtypes: how many of each dtype as it is stored.
    """

    parameters: int = 0
    stored: int = 0
    packed: Counter[tuple[int, int]] = field(default_factory=Counter)
    loose: int = 0
    dtypes: Counter[str] = field(default_factory=Counter)

    @property
    def dtype(self) -> str:
        """The name of the commonest."""
        return self.dtypes.most_common(1)[0][0] if self.dtypes else "empty"

    def add(self, tensor: safetensors.Tensor, shapes: Shapes, config: dict[str, Any]) -> None:
        """Take in a tensor. shapes: of all tensors of its file."""
        name, size = tensor.name, tensor.size
        count = _count(name, shapes, config)
        self.parameters += count
        self.stored += size
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and f"{layer}.scales" in shapes and count:
            group = count // max(1, math.prod(shapes[f"{layer}.scales"]))
            self.packed[round(32 * math.prod(shapes[name]) / count), group] += count
        elif kind == "weight" and len(shapes[name]) > 1:
            self.loose += count


def _weights(path: Path, config: dict[str, Any]) -> _Weights:
    """What the headers of the files say; nothing else is read."""
    seen = _Weights()
    for tensors in require_directory(path, display_name(path)).values():
        shapes = {each.name: each.shape for each in tensors}
        for each in tensors:
            seen.dtypes[each.dtype.lower()] += each.count
            seen.add(each, shapes, config)
    return seen
